//! What survives a restart, as rows of text.
//!
//! Invariant: a row that was changed by hand or comes from another clock can delay within the caps of the lanes and no
//! longer; nothing in a row is a secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::cell::{Cell, Hold, Level, Source};
use super::ladder::Lane;
use super::state::{Cells, State};
use crate::clock::WallTime;
use crate::id::{ProfileId, ProviderId};
use crate::policy::limit::Window;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kin: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<u64>,
    /// What was used of a daily limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    spent: Option<(u64, u64)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cells: Vec<Stored>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<StoredHold>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    levels: BTreeMap<String, (u8, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    probation: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredHold {
    lane: String,
    until: u64,
    source: String,
    opened: u64,
    rule: String,
}

impl State {
    pub(super) fn rows(&self) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        for (provider, pool) in &self.pools {
            for member in &pool.members {
                let row = Row {
                    fingerprint: member.fingerprint.map(hex),
                    kin: member.kin.map(hex),
                    disabled: member.disabled,
                    group: member.group.and_then(|at| pool.groups.get(at)).map(|group| group.name.to_string()),
                    last_used: member.last_used.map(|at| at.0),
                    spent: match &member.meter {
                        Some(meter) => meter.window().map(Window::stored),
                        None => member.spent,
                    },
                    cells: [
                        write("profile", &member.cells),
                        write("endpoint", &member.endpoints),
                        write("bucket", &member.buckets),
                        write("resource", &member.resources),
                    ]
                    .concat_rows(),
                };
                rows.extend(line(format!("profile {}", member.profile), &row));
            }
            for group in &pool.groups {
                let row = Row { cells: write("group", &group.cells), ..Row::default() };
                rows.extend(line(format!("group {provider} {}", group.name), &row));
            }
            let row = Row { cells: write("upstream", &pool.upstream), ..Row::default() };
            rows.extend(line(format!("upstream {provider}"), &row));
        }
        rows.sort();
        rows
    }

    /// Takes rows back. What cannot be read is left out.
    pub(super) fn restore(&mut self, rows: &[(String, String)], now: WallTime) {
        for (scope, text) in rows {
            let Ok(row) = serde_json::from_str::<Row>(text) else { continue };
            let mut words = scope.splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("profile"), Some(name), None) => {
                    if let Ok(profile) = ProfileId::parse(name) {
                        self.restore_profile(&profile, &row, now);
                    }
                }
                (Some("group"), Some(provider), Some(name)) => {
                    let Ok(provider) = ProviderId::parse(provider) else { continue };
                    let pool = self.pool(&provider);
                    let at = pool.group(&Arc::from(name), true);
                    if let Some(group) = pool.groups.get_mut(at) {
                        read(&mut group.cells, "group", &row.cells, now);
                    }
                }
                (Some("upstream"), Some(provider), None) => {
                    let Ok(provider) = ProviderId::parse(provider) else { continue };
                    read(&mut self.pool(&provider).upstream, "upstream", &row.cells, now);
                }
                _ => {}
            }
        }
    }

    fn restore_profile(&mut self, profile: &ProfileId, row: &Row, now: WallTime) {
        let pool = self.pool(&profile.provider);
        let at = match pool.index.get(profile.name.as_str()) {
            Some(at) => *at,
            None => pool.add(profile),
        };
        let group = row.group.as_deref().map(|name| pool.group(&Arc::from(name), true));
        let Some(member) = pool.members.get_mut(at) else { return };
        member.fingerprint = row.fingerprint.as_deref().and_then(unhex);
        member.kin = row.kin.as_deref().and_then(unhex);
        member.disabled = row.disabled;
        member.group = member.group.or(group);
        member.last_used = row.last_used.map(|at| WallTime(at.min(now.0)));
        member.spent = row.spent;
        if let (Some(meter), Some(spent)) = (&mut member.meter, row.spent) {
            meter.restore(spent);
        }
        read(&mut member.cells, "profile", &row.cells, now);
        read(&mut member.endpoints, "endpoint", &row.cells, now);
        read(&mut member.buckets, "bucket", &row.cells, now);
        read(&mut member.resources, "resource", &row.cells, now);
    }
}

trait Concat {
    fn concat_rows(self) -> Vec<Stored>;
}

impl<const N: usize> Concat for [Vec<Stored>; N] {
    fn concat_rows(self) -> Vec<Stored> {
        self.into_iter().flatten().collect()
    }
}

fn line(scope: String, row: &Row) -> Option<(String, String)> {
    serde_json::to_string(row).ok().map(|text| (scope, text))
}

fn write(kind: &str, cells: &Cells) -> Vec<Stored> {
    let worth = cells.each().filter(|(_, cell)| cell.hold.is_some() || cell.levels.iter().any(|level| level.count > 0));
    let stored = worth.map(|(part, cell)| Stored {
        kind: kind.to_owned(),
        part: part.map(ToString::to_string),
        hold: cell.hold.as_ref().map(|hold| StoredHold {
            lane: hold.lane.as_str().to_owned(),
            until: hold.until.0,
            source: hold.source.as_str().to_owned(),
            opened: hold.opened.0,
            rule: hold.rule.to_string(),
        }),
        levels: Lane::ALL
            .iter()
            .zip(cell.levels)
            .filter(|(_, level)| level.count > 0)
            .map(|(lane, level)| (lane.as_str().to_owned(), (level.count, level.at)))
            .collect(),
        probation: cell.probation.map(|at| at.0),
    });
    stored.collect()
}

fn read(cells: &mut Cells, kind: &str, stored: &[Stored], now: WallTime) {
    for row in stored.iter().filter(|row| row.kind == kind) {
        let cell = row.cell(now);
        match &row.part {
            None => cells.whole = cell,
            // As many as there are without a restart.
            Some(part) if cells.parts.len() < 64 && part.len() <= 256 => {
                cells.parts.push((Arc::from(part.as_str()), cell));
            }
            Some(_) => {}
        }
    }
}

impl Stored {
    fn cell(&self, now: WallTime) -> Cell {
        let mut cell = Cell { hold: self.hold.as_ref().and_then(|hold| hold.read(now)), ..Cell::default() };
        for (lane, (count, at)) in &self.levels {
            let Some(lane) = Lane::parse(lane) else { continue };
            if let Some(level) = cell.levels.get_mut(lane as usize) {
                *level = Level { count: (*count).min(64), at: (*at).min(now.0) };
            }
        }
        cell.probation = self.probation.map(|at| WallTime(at).min(now.plus(std::time::Duration::from_secs(600))));
        cell
    }
}

impl StoredHold {
    fn read(&self, now: WallTime) -> Option<Hold> {
        let lane = Lane::parse(&self.lane)?;
        Some(Hold {
            lane,
            // A clock that jumped, or a hand in the file: no longer than the lane allows from now.
            until: WallTime(self.until).min(now.plus(lane.cap())),
            source: Source::parse(&self.source)?,
            opened: WallTime(self.opened).min(now),
            rule: Arc::from(self.rule.get(..64).unwrap_or(&self.rule)),
        })
    }
}

fn hex(bytes: [u8; 8]) -> String {
    format!("{:016x}", u64::from_be_bytes(bytes))
}

fn unhex(text: &str) -> Option<[u8; 8]> {
    u64::from_str_radix(text, 16).ok().map(u64::to_be_bytes)
}
