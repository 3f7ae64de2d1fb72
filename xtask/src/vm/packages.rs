//! Debian's package lists: `Packages` and `Release`.

/// What is needed of a package's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    pub name: String,
    /// Relative to the archive's top.
    pub filename: String,
    pub sha256: String,
}

/// The packages of a `Packages` file; entries without a file or a checksum are left out.
pub fn parse(list: &str) -> Vec<Package> {
    list.split("\n\n").filter_map(parse_entry).collect()
}

fn parse_entry(entry: &str) -> Option<Package> {
    Some(Package {
        name: field(entry, "Package")?,
        filename: field(entry, "Filename")?,
        sha256: field(entry, "SHA256").filter(|hash| is_sha256(hash))?,
    })
}

/// A field's first line; continuation lines start with a space and are never taken for a field.
fn field(entry: &str, name: &str) -> Option<String> {
    let value = entry
        .lines()
        .find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(':')))?
        .trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// The checksum that a `Release` file gives for one of the suite's files.
pub fn release_sha256(release: &str, path: &str) -> Option<String> {
    release
        .lines()
        .skip_while(|line| line.trim_end() != "SHA256:")
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [hash, _size, name] if name == path && is_sha256(hash) => Some(hash.to_owned()),
            _ => None,
        })
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(package: &Package) -> String {
        let Package { name, filename, sha256 } = package;
        format!(
            "Package: {name}\nVersion: 1\nDescription: about it\n Package: not this one\n\
             Filename: {filename}\nSize: 12\nSHA256: {sha256}\n"
        )
    }

    fn package() -> impl Strategy<Value = Package> {
        ("[a-z][a-z0-9+.-]{1,20}", "pool/[a-z0-9/+._~-]{1,30}", "[0-9a-f]{64}")
            .prop_map(|(name, filename, sha256)| Package { name, filename, sha256 })
    }

    proptest! {
        #[test]
        fn reads_back_what_was_written(packages in prop::collection::vec(package(), 0..8)) {
            let list = packages.iter().map(entry).collect::<Vec<_>>().join("\n");
            prop_assert_eq!(parse(&list), packages);
        }

        #[test]
        fn survives_any_text(text in "\\PC*(\n\\PC*){0,9}") {
            parse(&text);
            release_sha256(&text, "main/binary-amd64/Packages.xz");
        }
    }

    #[test]
    fn entries_without_a_checksum_are_left_out() {
        let cases = [
            "",
            "Package: a\nFilename: pool/a.deb\n",
            "Package: a\nFilename: pool/a.deb\nSHA256: short\n",
            "Package: a\nSHA256: 00\n",
        ];
        for list in cases {
            assert_eq!(parse(list), [], "{list}");
        }
    }

    #[test]
    fn checksum_from_the_right_section_of_a_release() {
        let sha256 = "ab".repeat(32);
        let release = format!(
            "Suite: x\nMD5Sum:\n 00 1 main/Packages.xz\nSHA256:\n {} 1 main/Other.xz\n \
             {sha256} 12 main/Packages.xz\nAcquire-By-Hash: yes\n",
            "00".repeat(32)
        );
        assert_eq!(release_sha256(&release, "main/Packages.xz"), Some(sha256));
        assert_eq!(release_sha256(&release, "main/Absent.xz"), None);
    }
}
