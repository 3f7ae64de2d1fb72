//! Names of the functions at addresses that are only known later.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader},
};

use super::parse_line;

/// Addresses that are remembered; more, and all are forgotten.
const MAX_KNOWN: usize = 16 << 10;

/// The names of the functions at addresses of code, which are looked up when they are first met. Nothing
/// of the rest of the table, which is large, is kept.
#[derive(Debug, Default)]
pub struct Frames {
    /// Absent: no function is there.
    known: HashMap<u64, Option<Box<str>>>,
}

impl Frames {
    /// Makes these addresses known. Reads `/proc/kallsyms` once, in some 30 ms, unless all of them
    /// were known before.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn learn(&mut self, addresses: &[u64]) -> io::Result<()> {
        if addresses.iter().all(|address| self.known.contains_key(address)) {
            return Ok(());
        }
        if self.known.len() + addresses.len() > MAX_KNOWN {
            self.known.clear();
        }
        self.parse(BufReader::new(File::open("/proc/kallsyms")?), addresses)
    }

    fn parse(&mut self, mut reader: impl BufRead, addresses: &[u64]) -> io::Result<()> {
        let mut wanted: Vec<u64> = addresses.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        // For each the greatest start of a function that is not above it.
        let mut best: Vec<Option<(u64, Box<str>)>> = vec![None; wanted.len()];
        let mut line = Vec::with_capacity(128);
        while {
            line.clear();
            reader.read_until(b'\n', &mut line)? > 0
        } {
            let Some((start, kind, name)) = parse_line(&line) else { continue };
            // Address 0: they are hidden.
            if start == 0 || !matches!(kind, b't' | b'T' | b'w' | b'W') {
                continue;
            }
            let first = wanted.partition_point(|address| *address < start);
            let Some(best) = best.get_mut(first) else { continue };
            if best.as_ref().is_none_or(|(known, _)| *known < start) {
                *best = Some((start, label(&line, name)));
            }
        }
        // What fits an address also fits those above it.
        let mut below: Option<(u64, Box<str>)> = None;
        for (address, best) in wanted.into_iter().zip(best) {
            if best.as_ref().map(|(start, _)| *start) > below.as_ref().map(|(start, _)| *start) {
                below = best;
            }
            self.known.insert(address, below.as_ref().map(|(_, name)| name.clone()));
        }
        Ok(())
    }

    /// The name of the function at an address that was made known, with its module in brackets:
    /// `ext4_sync_file [ext4]`.
    pub fn name(&self, address: u64) -> Option<&str> {
        self.known.get(&address)?.as_deref()
    }
}

/// A function's name without the compiler's suffix, with its module.
fn label(line: &[u8], name: &[u8]) -> Box<str> {
    let base = name.split(|byte| *byte == b'.').next().unwrap_or_default();
    let module = line.split(|byte| *byte == b'\t').nth(1).map(<[u8]>::trim_ascii);
    let base = String::from_utf8_lossy(base);
    match module {
        Some(module) => format!("{base} {}", String::from_utf8_lossy(module)).into(),
        None => base.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(text: &[u8], addresses: &[u64]) -> Vec<Option<String>> {
        let mut frames = Frames::default();
        frames.parse(text, addresses).expect("bytes can be read");
        addresses.iter().map(|address| frames.name(*address).map(str::to_owned)).collect()
    }

    #[test]
    fn the_function_around_an_address() {
        // Modules are not in the order of their addresses, and data is no function.
        let text = b"1000 T first\n1100 t second.isra.0\n1180 d data\n3000 t third\t[b]\n2000 T fourth\t[a]\n";
        let text = [text.as_slice(), b"0 T hidden\nnonsense\n"].concat();
        let seen = names(&text, &[0x0fff, 0x1000, 0x10ff, 0x1190, 0x2fff, 0x3001, 0x2000]);
        let name = |name: &str| Some(name.to_owned());
        let expected = [
            None,
            name("first"),
            name("first"),
            name("second"),
            name("fourth [a]"),
            name("third [b]"),
            name("fourth [a]"),
        ];
        assert_eq!(seen, expected);
    }

    proptest! {
        #[test]
        fn any_bytes(
            text in proptest::collection::vec(any::<u8>(), 0..300),
            at in proptest::collection::vec(any::<u64>(), 0..4),
        ) {
            names(&text, &at);
        }
    }
}
