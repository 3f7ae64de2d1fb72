//! The mirror that this machine's apt is set up with, and downloads from it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use super::{
    kernels::{Archive, Series},
    packages::{self, Package},
};
use crate::{process, setup};

/// apt's own downloader: it knows the machine's proxies and verifies checksums.
const APT_HELPER: &str = "/usr/lib/apt/apt-helper";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where Debian's archives are.
#[derive(Debug, PartialEq, Eq)]
pub struct Mirror {
    main: String,
    security: String,
}

impl Mirror {
    pub fn find() -> Result<Self> {
        if let Some(mirror) = Self::from_targets(&index_targets()?) {
            return Ok(mirror);
        }
        setup::update_package_lists()?;
        Self::from_targets(&index_targets()?).context("apt is set up with no Debian mirror")
    }

    /// From lines `URI|label`, as `apt-get indextargets` prints them.
    fn from_targets(targets: &str) -> Option<Self> {
        let uri_of = |wanted: &str| {
            targets.lines().find_map(|line| {
                let (uri, label) = line.split_once('|')?;
                (label == wanted).then(|| uri.trim_end_matches('/').to_owned())
            })
        };
        let main = uri_of("Debian")?;
        // Mirrors carry both archives side by side.
        let security = uri_of("Debian-Security").unwrap_or_else(|| format!("{main}-security"));
        Some(Self { main, security })
    }

    fn archive(&self, archive: Archive) -> &str {
        match archive {
            Archive::Main => &self.main,
            Archive::Security => &self.security,
        }
    }

    /// The packages of a series' suite, by way of its signed release file.
    pub fn packages(&self, series: &Series, arch: &str, scratch: &Path) -> Result<Vec<Package>> {
        let suite = format!("{}/dists/{}", self.archive(series.archive), series.suite);
        let in_release = scratch.join("InRelease");
        download(&format!("{suite}/InRelease"), &in_release, None)?;
        let mut gpgv = Command::new("gpgv");
        gpgv.args(["--keyring", KEYRING, "--output", "-"]).arg(&in_release);
        let release = process::capture(&mut gpgv).context("the suite's signature")?;

        let path = format!("main/binary-{arch}/Packages.xz");
        let sha256 = packages::release_sha256(&release, &path)
            .with_context(|| format!("{suite} lists no {path}"))?;
        let list = scratch.join("Packages.xz");
        download(&format!("{suite}/{path}"), &list, Some(&sha256))?;
        let text = process::capture(Command::new("xz").args(["-dc"]).arg(&list))?;
        Ok(packages::parse(&text))
    }

    pub fn download(&self, archive: Archive, package: &Package, file: &Path) -> Result<()> {
        let uri = format!("{}/{}", self.archive(archive), package.filename);
        download(&uri, file, Some(&package.sha256))
    }
}

fn index_targets() -> Result<String> {
    process::capture(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)|$(LABEL)",
        "Created-By: Packages",
    ]))
}

fn download(uri: &str, file: &Path, sha256: Option<&str>) -> Result<()> {
    // A file of an earlier, interrupted run would be resumed.
    if file.exists() {
        fs::remove_file(file)?;
    }
    let mut helper = Command::new(APT_HELPER);
    helper.args(["download-file", uri]).arg(file);
    if let Some(sha256) = sha256 {
        helper.arg(format!("SHA256:{sha256}"));
    }
    process::capture(&mut helper).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_by_label() {
        let mirror = |main: &str, security: &str| {
            Some(Mirror { main: main.to_owned(), security: security.to_owned() })
        };
        let cases = [
            ("", None),
            ("http://other.example/x/|Other\n", None),
            (
                "http://a.example/debian/|Debian\n",
                mirror("http://a.example/debian", "http://a.example/debian-security"),
            ),
            (
                "http://o.example/|Other\nhttp://s.example/sec/|Debian-Security\nhttp://a.example/d|Debian\n",
                mirror("http://a.example/d", "http://s.example/sec"),
            ),
        ];
        for (targets, expected) in cases {
            assert_eq!(Mirror::from_targets(targets), expected, "{targets}");
        }
    }
}
