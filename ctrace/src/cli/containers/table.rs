//! Containers and units as tables for people. Pure.

use anstyle::Style;

use crate::event::text::{self, escape};
use crate::event::{Listed, ListedUnit, Pod, State};

/// Narrowest that a column is cut to, characters.
const MIN_WIDTH: usize = 8;
/// Between columns.
const GAP: &str = "  ";

/// How a table is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Bold heads: only for a terminal.
    pub bold: bool,
    /// Characters of a line; absent: nothing is cut.
    pub width: Option<usize>,
    /// Ids and paths as they are.
    pub whole: bool,
}

struct Column {
    head: &'static str,
    /// May be cut where the line is too long.
    is_flexible: bool,
}

const fn column(head: &'static str, is_flexible: bool) -> Column {
    Column { head, is_flexible }
}

const CONTAINERS: [Column; 8] = [
    column("ID", false),
    column("NAME", true),
    column("RUNTIME", false),
    column("IMAGE", true),
    column("POD", true),
    column("STATE", false),
    column("PID", false),
    column("CGROUP", true),
];

const UNITS: [Column; 3] =
    [column("UNIT", true), column("PROCESSES", false), column("CGROUP", true)];

/// One line for each container, below a head.
pub fn containers(list: &[Listed], look: Look) -> String {
    render(&CONTAINERS, list.iter().map(|listed| row(listed, look)).collect(), look)
}

/// One line for each unit, below a head.
pub fn units(list: &[ListedUnit], look: Look) -> String {
    let row = |unit: &ListedUnit| {
        let path = unit.cgroups.first().map(|place| place.path.to_string());
        vec![escape(&unit.name), unit.processes.to_string(), escape(&path.unwrap_or_default())]
    };
    render(&UNITS, list.iter().map(row).collect(), look)
}

fn row(listed: &Listed, look: Look) -> Vec<String> {
    let container = &listed.container;
    let id = if look.whole { container.id.clone() } else { container.short_id() };
    let path = listed.cgroups.first().map(|place| match look.whole {
        true => place.path.to_string(),
        false => text::path(&place.path),
    });
    let or_dash = |text: Option<String>| {
        text.filter(|text| !text.is_empty()).map_or_else(|| "-".to_owned(), |text| escape(&text))
    };
    vec![
        or_dash(Some(id)),
        or_dash(container.name.clone()),
        or_dash(container.runtime.map(|runtime| runtime.name().to_owned())),
        or_dash(container.image.clone()),
        or_dash(container.pod.as_ref().and_then(pod)),
        or_dash(listed.state.map(|state| State::name(state).to_owned())),
        or_dash(listed.process.as_ref().map(|process| process.pid.to_string())),
        or_dash(path),
    ]
}

/// `namespace/name`, or what is known of it.
pub fn pod(pod: &Pod) -> Option<String> {
    let Pod { name, namespace, uid, labels: _ } = pod;
    match (namespace, name) {
        (Some(namespace), Some(name)) => Some(format!("{namespace}/{name}")),
        (_, name) => name.clone().or_else(|| uid.clone()),
    }
}

fn render(columns: &[Column], rows: Vec<Vec<String>>, look: Look) -> String {
    let mut widths: Vec<usize> = columns.iter().map(|column| length(column.head)).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(length(cell));
        }
    }
    if let Some(room) = look.width {
        fit(columns, &mut widths, room);
    }
    let head: Vec<String> = columns.iter().map(|column| column.head.to_owned()).collect();
    let bold = Style::new().bold();
    let head = line(&head, &widths);
    let mut text = if look.bold { format!("{bold}{head}{bold:#}\n") } else { head + "\n" };
    for row in rows {
        text += &line(&row, &widths);
        text.push('\n');
    }
    text
}

/// Takes from the widest of the flexible columns until the line has room, or all are narrow.
fn fit(columns: &[Column], widths: &mut [usize], room: usize) {
    let gaps = GAP.len() * (widths.len() - 1);
    while widths.iter().sum::<usize>() + gaps > room {
        let flexible = widths.iter_mut().zip(columns).filter(|(_, column)| column.is_flexible);
        let widest = flexible.map(|(width, _)| width).max_by_key(|width| **width);
        match widest {
            Some(width) if *width > MIN_WIDTH => *width -= 1,
            _ => return,
        }
    }
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let cell = cut(cell, *width);
        let pad = width - length(&cell);
        line += &cell;
        line.extend(std::iter::repeat_n(' ', pad + GAP.len()));
    }
    line.truncate(line.trim_end().len());
    line
}

/// At most `width` characters, the last of them `…` where there were more.
fn cut(cell: &str, width: usize) -> String {
    if length(cell) <= width {
        return cell.to_owned();
    }
    cell.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

fn length(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests;
