//! Slots that the kernel passes by because of what it has seen: told, probed, and taken back where
//! the suspicion was wrong.

use orch_common::{
    event::{Event, EventKind},
    slot::{SlotKey, SlotState},
};

use super::{Controller, adopt::short, offence::may_go, tables::Tables};
use crate::{
    dataplane::SlotReading,
    state::{Cause, Life, Moment},
};

/// So long after a signal a good answer may still come from a listener that is about to close, and
/// after the end of its process one that was on its way.
const LAST_GASP: Moment = Moment::from_secs(1);

/// Why a backend is replaced that is deaf to most clients.
const DEAF: &str =
    "its probe is good, and again and again most clients' SYNs had no answer while others' had";

/// A slot that the kernel passes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspect {
    /// Why.
    kind: EventKind,
    /// Which of the slot's backends.
    generation: u32,
    /// Since when.
    since: Moment,
    /// Whether that was told. Many a slot is silent for a moment only, on a machine that is busy:
    /// the kernel takes it back with its next answer, and nobody needs to know.
    told: bool,
}

impl Suspect {
    /// The word for it.
    pub(super) const fn name(self) -> &'static str {
        self.kind.name()
    }

    /// Whether its process has ended, or was told to.
    pub(super) const fn ends(self) -> bool {
        matches!(self.kind, EventKind::Signalled | EventKind::Exited)
    }

    /// What it has done, for a person.
    pub(super) const fn deed(self) -> &'static str {
        match self.kind {
            EventKind::Refused => "refuses connections",
            EventKind::Exited => "has ended",
            EventKind::Signalled => "was told to end",
            EventKind::Silent => "has stopped answering while others go on",
            EventKind::Failing => "answers with server errors while others do not",
        }
    }
}

impl<T: Tables> Controller<T> {
    /// Probes at once where the kernel has seen something wrong: the next regular probe may be a
    /// second away. Only a backend that is well otherwise; the others are probed often enough.
    pub(super) fn suspect(&mut self) {
        let mut alarms = self.tables.alarms();
        alarms.dedup();
        // What goes may have SYNs on their way to it.
        if alarms.iter().any(|alarm| !alarm.kind.is_compared()) {
            self.replay_soon();
        }
        for alarm in alarms {
            if self.concerns_a_well_one(&alarm) {
                self.alarmed(&alarm);
            }
        }
    }

    /// Whether it is of a backend that is well and still wanted.
    fn concerns_a_well_one(&self, alarm: &Event) -> bool {
        let generation = self.readings.get(&alarm.slot).map(|slot| slot.generation);
        let current = self.slot(alarm.slot).and_then(|slot| slot.current.as_ref());
        generation == Some(alarm.generation)
            && current.is_some_and(|one| one.health.since.is_some() && one.life == Life::Running)
    }

    fn alarmed(&mut self, alarm: &Event) {
        let key = alarm.slot;
        let suspect = Suspect {
            kind: alarm.kind,
            generation: alarm.generation,
            since: self.now(),
            told: false,
        };
        self.suspects.insert(key, suspect);
        self.dirty = true;
        if alarm.kind != EventKind::Silent {
            self.follow_up(key, suspect);
        }
    }

    /// Tells of a suspect, and has it probed.
    fn follow_up(&mut self, key: SlotKey, suspect: Suspect) {
        let told = Suspect {
            told: true,
            ..suspect
        };
        self.suspects.insert(key, told);
        // Until it ends, or is seen to live on, there is nothing that a probe could say of one that
        // was told to end.
        if suspect.kind != EventKind::Signalled {
            self.begin_probing(key, false);
        }
        // One that refuses is soon seen to have ended.
        if suspect.kind != EventKind::Refused {
            let deed = suspect.deed();
            self.record_of(key, "suspect", |id| {
                format!("{id} {deed}: new connections pass it by")
            });
        }
    }

    /// Has picks consider a slot again that the kernel passes by, now that its probe is good.
    pub(super) fn clear(&mut self, key: SlotKey) {
        let Some(suspect) = self.suspects.get(&key).copied() else {
            return;
        };
        // A good answer may be older than the news of its end.
        if suspect.ends() && self.now() < suspect.since + self.last_gasp(key.service) {
            return;
        }
        let to = self.slot(key).and_then(|slot| slot.kernel);
        if to.is_some_and(|to| to.generation != suspect.generation) {
            self.suspects.remove(&key);
            return;
        }
        if self.has_gone_too_far(key, suspect) {
            return self.condemn(key, Cause::Failing);
        }
        if let Some(to) = to
            && let Err(error) = self.set_slot(key, to)
        {
            return self.troubled(&error);
        }
        self.suspects.remove(&key);
        self.dirty = true;
        self.can_go(key.service);
        if suspect.told && suspect.kind != EventKind::Refused {
            self.record_of(key, "cleared", |id| {
                format!("{id} takes connections again: it was suspected, and its probe is good")
            });
        }
    }

    /// Whether a backend is replaced though its probe is good, since its traffic says too often otherwise.
    fn has_gone_too_far(&mut self, key: SlotKey, suspect: Suspect) -> bool {
        let now = self.now();
        let Some(reading) = self.readings.get(&key) else {
            return false;
        };
        let offences = self.offences.entry(key).or_default();
        let (generation, kind) = (suspect.generation, suspect.kind);
        offences.add(generation, kind, &reading.counters, now) && self.may_spare(key.service)
    }

    /// Replaces backends that do not answer the SYNs of most clients, though their probes are good.
    pub(super) fn mind_handshakes(&mut self, now: Moment) {
        for key in self.handshakes.look(&self.readings, now) {
            let current = self.slot(key).and_then(|slot| slot.current.as_ref());
            let well =
                current.is_some_and(|one| one.health.since.is_some() && one.life == Life::Running);
            if well && self.may_spare(key.service) {
                self.condemn(key, Cause::Unreachable(DEAF.to_owned()));
            }
        }
    }

    /// Whether one more backend of the service may go for what its traffic says.
    fn may_spare(&self, service: u16) -> bool {
        let at = usize::from(service);
        let (Some(hosted), Some(seen)) = (self.services.get(at), self.observed.services.get(at))
        else {
            return false;
        };
        let desired = hosted.desired(self.closing.as_ref());
        let serving = seen.ring.as_ref().map_or(0, |ring| ring.len() as u16);
        may_go(desired, serving)
    }

    /// How long a backend that was told to end may go on answering before it does: as long as one
    /// may that we tell to end.
    fn last_gasp(&self, service: u16) -> Moment {
        let hosted = self.services.get(usize::from(service));
        let grace = hosted.map_or(Moment::ZERO, |hosted| hosted.config.backend.stop_grace);
        grace.max(LAST_GASP)
    }

    /// Makes what is known of suspects what the kernel says: an earlier controller may have been
    /// told, another backend in the slot is no suspect, and one that was silent may answer again.
    pub(super) fn recall(&mut self, reading: &SlotReading, now: Moment) {
        let known = self.suspects.get(&reading.key).copied();
        match (reading.passed_by, known) {
            (Some(kind), None) if reading.state == SlotState::Ready => {
                let new = Suspect {
                    kind,
                    generation: reading.generation,
                    since: now,
                    told: kind != EventKind::Silent,
                };
                self.suspects.insert(reading.key, new);
            }
            (Some(_), Some(suspect)) if !suspect.told => self.follow_up(reading.key, suspect),
            (Some(_), _) => {}
            (None, _) => {
                self.suspects.remove(&reading.key);
                if known.is_some_and(|known| known.kind == EventKind::Silent && known.told) {
                    self.record_of(reading.key, "cleared", |id| {
                        format!("{id} takes connections again: it was behind, and answers")
                    });
                }
            }
        }
    }

    fn record_of(&mut self, key: SlotKey, kind: &str, text: impl FnOnce(&str) -> String) {
        let current = self.slot(key).and_then(|slot| slot.current.as_ref());
        if let Some(text) = current.map(|current| text(short(&current.id.0))) {
            self.record(key, kind, text);
        }
    }
}
