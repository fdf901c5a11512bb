//! What `orch top` shows, and what keys change of it. Pure: no terminal, no socket.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, VecDeque},
};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::{
    history::Sample,
    live::{Live, LiveSlot},
    view::EventRow,
};

/// Samples that are drawn of a service.
const SAMPLES: usize = 600;
/// Events that are kept.
const EVENTS: usize = 200;

/// By what slots are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Slot,
    State,
    Rate,
    Latency,
    Connections,
    Age,
}

impl Sort {
    const ALL: [Self; 6] = [
        Self::Slot,
        Self::State,
        Self::Rate,
        Self::Latency,
        Self::Connections,
        Self::Age,
    ];

    /// The column's head.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Slot => "SLOT",
            Self::State => "STATE",
            Self::Rate => "REQ/S",
            Self::Latency => "P99",
            Self::Connections => "CONNS",
            Self::Age => "AGE",
        }
    }

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|one| *one == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    fn compare(self, one: &LiveSlot, other: &LiveSlot) -> Ordering {
        let number = |a: f64, b: f64| b.total_cmp(&a);
        let by = match self {
            Self::Slot => Ordering::Equal,
            Self::State => one.row.state.cmp(&other.row.state),
            Self::Rate => number(one.request_rate, other.request_rate),
            Self::Latency => number(one.p99_s.unwrap_or(-1.0), other.p99_s.unwrap_or(-1.0)),
            Self::Connections => other.row.connections.cmp(&one.row.connections),
            Self::Age => number(one.row.age_s, other.row.age_s),
        };
        let place = |slot: &LiveSlot| (slot.row.service.clone(), slot.row.slot);
        by.then_with(|| place(one).cmp(&place(other)))
    }
}

/// What a key asks for beyond another picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Onward {
    Stay,
    /// Read the log at once.
    Log,
    Quit,
}

/// What is shown.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, and all combinations are possible"
)]
pub(super) struct Model {
    pub(super) live: Live,
    pub(super) samples: BTreeMap<String, VecDeque<Sample>>,
    pub(super) events: VecDeque<EventRow>,
    pub(super) sort: Sort,
    pub(super) reverse: bool,
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) typing: bool,
    pub(super) connected: bool,
    /// The slot that is chosen, so that it stays so when rows move.
    chosen: Option<(String, u16)>,
    log: Option<Log>,
    fresh: bool,
}

/// A log that is followed.
#[derive(Debug)]
struct Log {
    service: String,
    slot: u16,
    text: String,
}

impl Model {
    /// Takes a picture. The first of a stream has everything, whatever was there before.
    pub(super) fn take(&mut self, picture: Live) {
        if !self.connected || self.fresh {
            self.samples.clear();
            self.events.clear();
        }
        (self.connected, self.fresh) = (true, false);
        let there = |name: &String| picture.services.iter().any(|one| one.row.service == *name);
        self.samples.retain(|name, _| there(name));
        for service in &picture.services {
            let kept = self.samples.entry(service.row.service.clone()).or_default();
            kept.extend(service.samples.iter().copied());
            let surplus = kept.len().saturating_sub(SAMPLES);
            kept.drain(..surplus);
        }
        self.events.extend(picture.events.iter().cloned());
        let surplus = self.events.len().saturating_sub(EVENTS);
        self.events.drain(..surplus);
        self.live = picture;
    }

    /// The controller does not answer any more.
    pub(super) const fn lost(&mut self) {
        self.connected = false;
    }

    /// It answers again, and begins anew.
    pub(super) const fn found(&mut self) {
        self.fresh = true;
    }

    /// Slots that match, in their order.
    pub(super) fn slots(&self) -> Vec<&LiveSlot> {
        let wanted = self.filter.to_lowercase();
        let matches = |slot: &&LiveSlot| {
            let row = &slot.row;
            let text = format!(
                "{} {} {} {} {}",
                row.service, row.slot, row.port, row.state, row.backend
            );
            text.to_lowercase().contains(&wanted)
        };
        let mut slots: Vec<_> = self.live.slots.iter().filter(matches).collect();
        slots.sort_by(|one, other| self.sort.compare(one, other));
        if self.reverse {
            slots.reverse();
        }
        slots
    }

    /// Which of `slots()` is chosen.
    pub(super) fn cursor(&self) -> Option<usize> {
        let slots = self.slots();
        let chosen = self.chosen.as_ref().and_then(|(service, number)| {
            let is = |slot: &&LiveSlot| slot.row.service == *service && slot.row.slot == *number;
            slots.iter().position(is)
        });
        chosen.or((!slots.is_empty()).then_some(0))
    }

    /// Whose log is followed.
    pub(super) fn followed(&self) -> Option<(&str, u16)> {
        let log = self.log.as_ref()?;
        Some((&log.service, log.slot))
    }

    /// What the log is, as far as it is known.
    pub(super) fn log_text(&self) -> Option<&str> {
        self.log.as_ref().map(|log| log.text.as_str())
    }

    /// Takes in the end of the log that is followed.
    pub(super) fn log(&mut self, text: String) {
        if let Some(log) = &mut self.log {
            log.text = text;
        }
    }

    /// Does what a key means.
    pub(super) fn key(&mut self, key: KeyEvent) -> Onward {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Onward::Quit;
        }
        if self.typing {
            self.type_filter(key.code);
            return Onward::Stay;
        }
        match key.code {
            KeyCode::Esc | KeyCode::Char('q') if self.log.is_some() => self.log = None,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('q') => return Onward::Quit,
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Enter | KeyCode::Char('l') => return self.follow(),
            _ => {}
        }
        Onward::Stay
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(char) => self.filter.push(char),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            _ => {}
        }
    }

    fn step(&mut self, by: isize) {
        let slots = self.slots();
        let last = slots.len().saturating_sub(1);
        let at = self.cursor().unwrap_or(0).saturating_add_signed(by);
        let chosen = slots.get(at.min(last));
        self.chosen = chosen.map(|slot| (slot.row.service.clone(), slot.row.slot));
    }

    fn follow(&mut self) -> Onward {
        let slots = self.slots();
        let Some(slot) = self.cursor().and_then(|at| slots.get(at)) else {
            return Onward::Stay;
        };
        let (service, slot) = (slot.row.service.clone(), slot.row.slot);
        self.chosen = Some((service.clone(), slot));
        self.log = Some(Log {
            service,
            slot,
            text: String::new(),
        });
        Onward::Log
    }
}
