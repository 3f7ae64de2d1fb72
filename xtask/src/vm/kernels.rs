//! Which kernels are tested, and which of Debian's packages they come in.

use super::packages::Package;

/// The two archives that the suites lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archive {
    Main,
    Security,
}

/// A line of kernels that a Debian suite carries.
#[derive(Debug)]
pub struct Series {
    pub name: &'static str,
    pub why: &'static str,
    pub archive: Archive,
    pub suite: &'static str,
    /// What the kernel's release begins with.
    prefix: &'static str,
}

pub const SERIES: &[Series] = &[
    Series {
        name: "5.10",
        why: "the oldest supported; mark_victim gives the pid only",
        archive: Archive::Main,
        suite: "bullseye",
        prefix: "5.10.",
    },
    Series {
        name: "5.10-security",
        why: "5.10 with later tracepoint signatures ported back",
        archive: Archive::Security,
        suite: "bullseye-security",
        prefix: "5.10.",
    },
    Series {
        name: "6.1",
        why: "long-term",
        archive: Archive::Main,
        suite: "bookworm",
        prefix: "6.1.",
    },
    Series {
        name: "6.12",
        why: "long-term",
        archive: Archive::Main,
        suite: "trixie",
        prefix: "6.12.",
    },
    Series {
        name: "newest",
        why: "the newest that Debian has an image of",
        archive: Archive::Main,
        suite: "trixie-backports",
        prefix: "",
    },
];

/// Name of a package with image and modules.
const WHOLE: &str = "linux-image-";
/// Name of a package with the image only.
const SPLIT: &str = "linux-binary-";

/// A kernel's release and the packages that make it up.
#[derive(Debug)]
pub struct Choice {
    pub release: String,
    pub packages: Vec<Package>,
}

/// The highest plain kernel of a series in a package list.
///
/// Cloud kernels lack the drivers of the virtual machine, real-time ones are another kind.
pub fn choose(series: &Series, list: &[Package], arch: &str) -> Option<Choice> {
    let highest = list
        .iter()
        .filter_map(|package| Some((plain_release(&package.name, arch)?, package)))
        .filter(|(release, _)| release.starts_with(series.prefix))
        // Where both are there, the one named `image` is empty and points to `binary`.
        .max_by_key(|(release, package)| (numbers(release), package.name.starts_with(SPLIT)))?;
    let (release, image) = highest;
    let release = format!("{release}-{arch}");
    // Newer kernels come split: the image, the modules, and the list of what is built in.
    let parts = [format!("linux-modules-{release}"), format!("linux-base-{release}")];
    let mut packages = vec![image.clone()];
    packages.extend(list.iter().filter(|package| parts.contains(&package.name)).cloned());
    Some(Choice { release, packages })
}

/// The release in the name of a plain kernel's package, without the architecture.
fn plain_release<'a>(package: &'a str, arch: &str) -> Option<&'a str> {
    let rest = package.strip_prefix(WHOLE).or_else(|| package.strip_prefix(SPLIT))?;
    let release = rest.strip_suffix(arch)?.strip_suffix('-')?;
    let is_plain = release.split('-').all(|part| part.starts_with(|c: char| c.is_ascii_digit()));
    // `linux-image-6.1-amd64` only points to another package.
    (is_plain && release.matches('.').count() >= 2).then_some(release)
}

/// The numbers in a release, for comparing.
pub fn numbers(release: &str) -> Vec<u64> {
    release
        .split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<Package> {
        names
            .iter()
            .map(|name| Package {
                name: (*name).to_owned(),
                filename: format!("pool/{name}.deb"),
                sha256: "0".repeat(64),
            })
            .collect()
    }

    fn chosen(series: &str, names: &[&str]) -> Option<(String, Vec<String>)> {
        let series = SERIES.iter().find(|candidate| candidate.name == series)?;
        let Choice { release, packages } = choose(series, &list(names), "amd64")?;
        Some((release, packages.into_iter().map(|package| package.name).collect()))
    }

    #[test]
    fn highest_by_number_not_by_letter() {
        let names =
            ["linux-image-6.12.94+deb13-amd64", "linux-image-6.12.107+deb13-amd64", "linux-doc"];
        let (release, packages) = chosen("6.12", &names).unwrap();
        assert_eq!(release, "6.12.107+deb13-amd64");
        assert_eq!(packages, ["linux-image-6.12.107+deb13-amd64"]);
    }

    #[test]
    fn only_plain_kernels_of_the_series() {
        let names = [
            "linux-image-5.10.0-30-amd64",
            "linux-image-5.10.0-32-cloud-amd64",
            "linux-image-5.10.0-33-rt-amd64",
            "linux-image-5.10.0-34-amd64-unsigned",
            "linux-image-5.10.0-35-amd64-dbg",
            "linux-image-5.10-amd64",
            "linux-image-6.1.0-0.deb11.48-amd64",
            "linux-image-amd64",
        ];
        assert_eq!(chosen("5.10", &names).unwrap().0, "5.10.0-30-amd64");
        assert_eq!(chosen("6.12", &names), None);
        assert_eq!(chosen("5.10", &[]), None);
    }

    #[test]
    fn newest_with_all_its_parts() {
        let names = [
            "linux-image-7.2.11+deb13-amd64",
            "linux-binary-7.2.12+deb13-amd64",
            "linux-binary-unsigned-7.3.4+deb13-amd64",
            "linux-modules-7.3.4+deb13-amd64",
            "linux-base-7.2.12+deb13-amd64",
            "linux-modules-7.2.12+deb13-amd64",
            "linux-image-7.2.12+deb13-amd64",
        ];
        let (release, packages) = chosen("newest", &names).unwrap();
        assert_eq!(release, "7.2.12+deb13-amd64");
        let expected = [
            "linux-binary-7.2.12+deb13-amd64",
            "linux-base-7.2.12+deb13-amd64",
            "linux-modules-7.2.12+deb13-amd64",
        ];
        assert_eq!(packages, expected);
    }
}
