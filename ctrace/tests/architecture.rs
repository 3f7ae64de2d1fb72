//! Who may import whom. The rules are those of the crate's documentation.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A module (a folder or a file of `src`) and what must not stand in its imports.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("event", &["aya", "crate::"]),
    (
        "verdict.rs",
        &["aya", "attribute", "kernel", "probes", "sink", "filter", "collect", "loader"],
    ),
    ("filter.rs", &["aya", "attribute", "kernel", "probes", "sink", "collect", "loader"]),
    ("filter", &["aya", "attribute", "kernel", "probes", "sink", "collect", "loader"]),
    ("sink", &["aya", "attribute", "kernel", "probes", "filter", "collect", "loader"]),
    ("report", &["aya", "attribute", "kernel", "probes", "filter", "sink", "collect", "loader"]),
    ("report.rs", &["aya", "attribute", "kernel", "probes", "filter", "sink", "collect", "loader"]),
    ("attribute", &["aya", "kernel", "probes", "sink", "filter", "collect", "loader"]),
    (
        "enrich",
        &[
            "aya",
            "attribute",
            "cli",
            "collect",
            "filter",
            "kernel",
            "loader",
            "output",
            "pipeline",
            "plan",
            "probes",
            "sink",
        ],
    ),
    ("kernel", &["aya", "attribute", "probes", "sink", "filter", "collect", "loader"]),
    ("probes", &["attribute", "filter", "collect", "loader", "cli", "pipeline"]),
    ("plan.rs", &["aya", "attribute", "kernel", "sink", "collect", "loader", "cli"]),
    ("collect.rs", &["attribute", "sink", "filter", "cli", "pipeline"]),
    ("output.rs", &["aya", "attribute", "kernel", "probes", "filter", "loader", "cli"]),
    ("pipeline.rs", &["cli"]),
];

fn files(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_owned()];
    }
    let entries = fs::read_dir(place).expect("a folder of src").flatten();
    entries.flat_map(|entry| files(&entry.path())).collect()
}

/// The paths that a file names in code: whole lines of comments and test modules are left out.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("UTF-8");
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn modules_import_only_what_they_may() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut broken = Vec::new();
    for (module, forbidden) in FORBIDDEN {
        for file in files(&src.join(module)) {
            if file.file_stem().is_some_and(|stem| stem == "tests") {
                continue;
            }
            // `use crate::{a, b}` spreads a path over lines: whitespace and braces go.
            let code = code(&file);
            let imports = code.split("use ").skip(1).filter_map(|rest| rest.split(';').next());
            for import in imports {
                let words: Vec<_> =
                    import.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
                for name in *forbidden {
                    let found = match name.strip_suffix("::") {
                        Some(root) => words.first() == Some(&root),
                        None if *name == "aya" => words.first() == Some(name),
                        None => words.first() == Some(&"crate") && words.contains(name),
                    };
                    if found {
                        broken.push(format!("{} imports {name}", file.display()));
                    }
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
