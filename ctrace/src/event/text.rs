//! How values look to people.

/// Bytes in the largest binary unit that fits: `64.0 MiB`. Below 1 KiB: `512 B`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut size = count as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would print as 1024.0 of the smaller unit.
    while size >= 1023.95 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// A time in the largest unit that fits, with three digits: `1.50 ms`, `2.00 s`.
pub fn duration(ns: u64) -> String {
    let seconds = ns as f64 / 1e9;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.3} µs", seconds * 1e6),
        1_000_000..1_000_000_000 => format!("{:.3} ms", seconds * 1e3),
        _ if seconds < 60.0 => format!("{seconds:.3} s"),
        _ => format!("{} s", seconds.round()),
    }
}

/// How long something lived: as [`duration`] up to a minute, then in the two largest units.
pub fn age(ns: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let seconds = ns / 1_000_000_000;
    let Some(largest) = UNITS.iter().position(|unit| seconds >= unit.1).filter(|_| seconds >= 60)
    else {
        return duration(ns);
    };
    let mut left = seconds;
    let parts = UNITS.iter().skip(largest).take(2).filter_map(|(name, size)| {
        let count = left / size;
        left %= size;
        (count > 0).then(|| format!("{count} {name}"))
    });
    parts.collect::<Vec<_>>().join(" ")
}

/// A word of a command line: in quotes where a shell would split it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// A cgroup path with the 64 hexadecimal digits of container ids cut to 12.
pub fn path(path: &str) -> String {
    let mut short = String::with_capacity(path.len());
    let mut digits = 0;
    for character in path.chars() {
        digits = if character.is_ascii_hexdigit() { digits + 1 } else { 0 };
        short.push(character);
        if digits == 64 {
            short.truncate(short.len() - 52);
            short.push('…');
            digits = 0;
        }
    }
    short
}

/// Makes outside text safe for a terminal and for one line: control characters, and those that
/// turn the direction of writing, become `\xNN` or `\u{NNNN}`.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' | '\n' | '\r' => safe.extend(character.escape_default()),
            character if character.is_control() && (character as u32) < 0x100 => {
                safe.push_str(&format!("\\x{:02x}", character as u32));
            }
            character if is_turning(character) => safe.extend(character.escape_unicode()),
            character => safe.push(character),
        }
    }
    safe
}

/// The characters of Unicode's property Bidi_Control, and the separators of lines and paragraphs.
fn is_turning(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_in_the_largest_unit() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (67_108_864, "64.0 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn ages_in_two_units() {
        const SECOND: u64 = 1_000_000_000;
        for (ns, text) in [
            (1_500_000, "1.500 ms"),
            (59 * SECOND, "59.000 s"),
            (61 * SECOND, "1 min 1 s"),
            (3 * 3_600 * SECOND, "3 h"),
            (3 * 3_600 * SECOND + 61 * SECOND, "3 h 1 min"),
            (86_400 * SECOND + 59 * SECOND, "1 d"),
            (u64::MAX, "213503 d 23 h"),
        ] {
            assert_eq!(age(ns), text);
        }
    }

    #[test]
    fn container_ids_are_cut() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(path(&format!("/docker/{id}")), "/docker/0123456789ab…");
        assert_eq!(
            path(&format!("/system.slice/docker-{id}.scope")),
            "/system.slice/docker-0123456789ab….scope"
        );
        assert_eq!(path("/user.slice/abc"), "/user.slice/abc");
    }

    #[test]
    fn hostile_text_is_escaped() {
        assert_eq!(escape("a\x1b[31m\nb\u{202e}"), "a\\x1b[31m\\nb\\u{202e}");
    }

    /// PropList.txt of Unicode: Bidi_Control.
    #[test]
    fn the_direction_of_writing_is_not_turned() {
        for turning in "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\
                        \u{2067}\u{2068}\u{2069}"
            .chars()
        {
            let plain = format!("\\u{{{:x}}}", turning as u32);
            assert_eq!(escape(&format!("a{turning}b")), format!("a{plain}b"));
        }
    }

    proptest! {
        #[test]
        fn no_control_character_survives(text in any::<String>()) {
            prop_assert!(!escape(&text).chars().any(char::is_control));
        }
    }
}
