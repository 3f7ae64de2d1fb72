//! Address ranges of chosen kernel functions, from `/proc/kallsyms`.

mod frames;

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
};

pub use frames::Frames;

/// Why no symbols can be had.
#[derive(Debug, thiserror::Error)]
pub enum SymbolsError {
    /// The file could not be read.
    #[error("cannot read /proc/kallsyms: {0}")]
    Read(#[from] io::Error),
    /// All addresses read as zero.
    #[error("/proc/kallsyms hides addresses (kptr_restrict, or no CAP_SYSLOG)")]
    Hidden,
}

/// Which functions to keep: by full names and by starts of names.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    names: &'a [&'a str],
    prefixes: &'a [&'a str],
}

impl Wanted<'_> {
    fn has(self, base: &[u8]) -> bool {
        self.names.iter().any(|name| name.as_bytes() == base)
            || self.prefixes.iter().any(|prefix| base.starts_with(prefix.as_bytes()))
    }
}

#[derive(Debug)]
struct Range {
    start: u64,
    end: u64,
    name: Box<str>,
}

/// The address ranges of the wanted functions.
#[derive(Debug)]
pub struct Symbols {
    /// Sorted by start.
    ranges: Vec<Range>,
}

/// What a function can be at most where the next symbol does not say: the last one of the kernel
/// proper or of a module.
const LAST_SIZE: u64 = 4096;

impl Symbols {
    /// Reads `/proc/kallsyms` once and keeps the functions with one of these names or with a name
    /// that starts with one of these prefixes. Takes about 30 ms, nearly all of it the kernel's. The compiler's pieces of a function (`.isra.0`,
    /// `.constprop.0`, `.part.0`, `.cold`) count as the function.
    ///
    /// # Errors
    /// [`SymbolsError::Hidden`] where the addresses are hidden from this process.
    pub fn load(names: &[&str], prefixes: &[&str]) -> Result<Self, SymbolsError> {
        Self::parse(BufReader::new(File::open("/proc/kallsyms")?), Wanted { names, prefixes })
    }

    /// Skips lines that are not of the file's format.
    fn parse(mut reader: impl BufRead, wanted: Wanted<'_>) -> Result<Self, SymbolsError> {
        let mut ranges: Vec<Range> = Vec::new();
        // The ranges from here on wait for the next higher address as their end: several where
        // names share an address.
        let mut open = 0;
        let mut hidden = true;
        let mut line = Vec::with_capacity(128);
        while {
            line.clear();
            reader.read_until(b'\n', &mut line)? > 0
        } {
            let Some((address, kind, name)) = parse_line(&line) else { continue };
            if address == 0 {
                continue;
            }
            hidden = false;
            if let Some(start) = ranges.get(open).map(|range| range.start)
                && start != address
            {
                let end = if address > start { address } else { start.saturating_add(LAST_SIZE) };
                ranges[open..].iter_mut().for_each(|range| range.end = end);
                open = ranges.len();
            }
            let base = name.split(|&b| b == b'.').next().unwrap_or_default();
            if matches!(kind, b't' | b'T' | b'w' | b'W') && wanted.has(base) {
                let name = String::from_utf8_lossy(base).into();
                ranges.push(Range { start: address, end: address.saturating_add(LAST_SIZE), name });
            }
        }
        if hidden {
            return Err(SymbolsError::Hidden);
        }
        ranges.sort_by_key(|range| range.start);
        Ok(Self { ranges })
    }

    /// The wanted function that contains an address, by its name without compiler suffix.
    pub fn lookup(&self, address: u64) -> Option<&str> {
        let after = self.ranges.partition_point(|range| range.start <= address);
        let range = self.ranges[..after].last()?;
        (address < range.end).then_some(&*range.name)
    }

    /// How many pieces of functions were found.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether none of the wanted functions was found.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

/// `ffffffff81000000 T name\t[module]`
fn parse_line(line: &[u8]) -> Option<(u64, u8, &[u8])> {
    let space = line.iter().position(|&b| b == b' ')?;
    if !(1..=16).contains(&space) {
        return None;
    }
    let mut address = 0;
    for &digit in &line[..space] {
        address = address << 4 | u64::from((digit as char).to_digit(16)?);
    }
    let rest = &line[space + 1..];
    let (&kind, &gap) = (rest.first()?, rest.get(1)?);
    let name = rest[2..].split(|b| matches!(b, b'\t' | b' ' | b'\n')).next()?;
    (gap == b' ' && !name.is_empty()).then_some((address, kind, name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WANTED: Wanted<'_> =
        Wanted { names: &["out_of_memory", "try_charge"], prefixes: &["__alloc_"] };

    fn parse(text: &[u8]) -> Result<Symbols, SymbolsError> {
        Symbols::parse(text, WANTED)
    }

    #[test]
    fn ranges() {
        let text = b"0000000000000000 A fixed_percpu_data
ffffffff81000000 T _text
ffffffff81000100 t try_charge.part.0
ffffffff81000100 t alias
ffffffff81000200 t try_charge_memcg
ffffffff81000300 T out_of_memory
ffffffff81000380 t out_of_memory.cold
ffffffff81000400 W __alloc_pages_noprof
ffffffff81000500 D out_of_memory
ffffffff81000600 T __alloc_last
ffffffffc0000000 t out_of_memory\t[module]
ffffffffb0000000 t next\t[other]
";
        let symbols = parse(text).unwrap();
        let lookup = |low: u64| symbols.lookup(0xffff_ffff_8100_0000 + low);
        assert_eq!(lookup(0xff), None);
        assert_eq!(lookup(0x100), Some("try_charge"));
        assert_eq!(lookup(0x1ff), Some("try_charge"));
        assert_eq!(lookup(0x200), None);
        assert_eq!(lookup(0x37f), Some("out_of_memory"));
        assert_eq!(lookup(0x380), Some("out_of_memory"));
        assert_eq!(lookup(0x4ff), Some("__alloc_pages_noprof"));
        assert_eq!(lookup(0x500), None);
        assert_eq!(symbols.lookup(0xffff_ffff_c000_0fff), Some("out_of_memory"));
        assert_eq!(symbols.lookup(0xffff_ffff_c000_1000), None);
        assert_eq!(symbols.lookup(u64::MAX), None);
        assert_eq!(symbols.len(), 6);
    }

    #[test]
    fn hidden() {
        let text = b"0000000000000000 T out_of_memory\n0000000000000000 T x\n";
        assert!(matches!(parse(text), Err(SymbolsError::Hidden)));
        assert!(parse(b"1 T x\n").unwrap().is_empty());
    }

    #[test]
    fn this_kernel() {
        let start = std::time::Instant::now();
        match Symbols::load(WANTED.names, WANTED.prefixes) {
            Ok(symbols) => {
                println!("{} ranges in {:?}", symbols.len(), start.elapsed());
                assert!(symbols.ranges.iter().any(|range| &*range.name == "out_of_memory"));
                for range in &symbols.ranges {
                    assert!(range.end > range.start, "{range:?}");
                }
            }
            Err(error) => println!("skipped: {error}"),
        }
    }

    proptest! {
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..300), at: u64) {
            if let Ok(symbols) = parse(&text) {
                symbols.lookup(at);
            }
        }

        #[test]
        fn like_lines(lines in proptest::collection::vec("[0-9a-f]{1,16} [tTdW] (out_of_memory|__alloc_x|y)(.cold)?", 0..20), at: u64) {
            if let Ok(symbols) = parse(lines.join("\n").as_bytes()) {
                symbols.lookup(at);
            }
        }
    }
}
