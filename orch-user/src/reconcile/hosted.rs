//! A service as the controller hosts it: its configuration and what is remembered beside the
//! state that the plan sees.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write,
    sync::Arc,
    time::Duration,
};

use orch_common::counter::SlotCounters;

use super::{Closing, consult::Consult, gauge::Gauge, runtimes::Runtimes};
use crate::{
    config::{BackendConfig, Publish, ScaleConfig, ServiceConfig, SpareKind},
    delivery::{Choice, Way},
    plan::warmup::Warmup,
    runtime::{Order, PublishOn, RuntimeKind},
    scale::{Tape, rest::Rest},
    state::{FIRST_SPARE, Moment, Wish},
};

/// Rates are averages over this time.
const RATE_SPAN: Duration = Duration::from_secs(10);

/// A slot whose backends are not reached as the service's others are.
struct Apart {
    delivery: Choice,
    spec: String,
}

/// A service.
pub(super) struct Hosted {
    pub(super) config: ServiceConfig,
    backend: Arc<BackendConfig>,
    pub(super) kind: RuntimeKind,
    delivery: Choice,
    pub(super) spec: String,
    pub(super) policy: Tape,
    pub(super) gauge: Gauge,
    pub(super) consult: Consult,
    pub(super) rest: Rest,
    /// Slots that are new in the ring, and what the kernel was told of them last.
    pub(super) warmup: Warmup,
    pub(super) shares: BTreeMap<u16, u8>,
    /// Counts of slots that the kernel has forgotten.
    pub(super) retired: SlotCounters,
    /// Counts of all slots, the forgotten ones included.
    pub(super) totals: SlotCounters,
    history: VecDeque<(Moment, u64, u64)>,
    pub(super) replacements: BTreeMap<&'static str, u64>,
    pub(super) decisions: BTreeMap<&'static str, u64>,
    /// Delivery is not what was chosen at first: that was tried and failed.
    fell_back: bool,
    /// Slots in which it was tried and failed, while others are reached so.
    apart: BTreeMap<u16, Apart>,
    /// The configuration does not have it any more: it drains, and keeps its index meanwhile.
    pub(super) leaving: bool,
}

impl Hosted {
    pub(super) fn new(config: ServiceConfig, delivery: Choice, now: Moment) -> Self {
        let kind = Runtimes::kind_for(&config.backend);
        Self {
            backend: Arc::new(config.backend.clone()),
            spec: spec(&config, kind, delivery.way),
            delivery,
            policy: Tape::new(config.scale.min, 0, now, &config.scale),
            gauge: Gauge::default(),
            consult: Consult::default(),
            rest: Rest::new(now),
            warmup: Warmup::default(),
            shares: BTreeMap::new(),
            kind,
            config,
            retired: SlotCounters::default(),
            totals: SlotCounters::default(),
            history: VecDeque::new(),
            replacements: BTreeMap::new(),
            decisions: BTreeMap::new(),
            fell_back: false,
            apart: BTreeMap::new(),
            leaving: false,
        }
    }

    /// Takes a new configuration of the same service.
    pub(super) fn reconfigure(&mut self, config: ServiceConfig, delivery: Choice) {
        let kind = Runtimes::kind_for(&config.backend);
        // What direct delivery failed for is here to stay, as long as the runtime does.
        if kind != self.kind || !self.fell_back {
            (self.delivery, self.fell_back) = (delivery, false);
        }
        if kind != self.kind || self.delivery.way == Way::Port {
            self.apart.clear();
        }
        self.kind = kind;
        self.spec = spec(&config, kind, self.delivery.way);
        for apart in self.apart.values_mut() {
            apart.spec = spec(&config, kind, apart.delivery.way);
        }
        self.backend = Arc::new(config.backend.clone());
        self.config = config;
        self.leaving = false;
    }

    /// Begins with the fewest copies again.
    pub(super) fn forget_policy(&mut self, rules: &ScaleConfig, now: Moment) {
        self.policy = Tape::new(rules.min, self.totals.requests, now, rules);
        self.rest = Rest::new(now);
    }

    /// Has backends reached by port from now on: directly they cannot be, for this reason.
    pub(super) fn fall_back(&mut self, reason: String) {
        self.delivery = Choice::port(reason);
        self.fell_back = true;
        self.apart.clear();
        self.spec = spec(&self.config, self.kind, self.delivery.way);
    }

    /// The same for the backends of one slot, while those of others are reached directly.
    pub(super) fn set_apart(&mut self, slot: u16, reason: String) {
        let delivery = Choice::port(reason);
        let spec = spec(&self.config, self.kind, delivery.way);
        self.apart.insert(slot, Apart { delivery, spec });
    }

    /// How the backends of a slot are reached.
    pub(super) fn delivery_to(&self, slot: u16) -> &Choice {
        let apart = self.apart.get(&slot);
        apart.map_or(&self.delivery, |apart| &apart.delivery)
    }

    pub(super) fn wish(&self, closing: Option<&Closing>) -> Wish {
        let backend = &self.backend;
        let hurry = closing.is_some_and(|closing| closing.hurry);
        let ends = closing.is_some() || self.leaving;
        let overlap = publish_on(self.config.publish, self.delivery.way) == PublishOn::Nowhere;
        let apart = self.apart.iter();
        let apart = apart.map(|(slot, apart)| (*slot, apart.spec.clone()));
        // A process has its port from when it begins: gated, it has none yet.
        let spared = overlap || self.kind == RuntimeKind::Process;
        let unless = |not: bool, value: u16| if not { 0 } else { value };
        let patience = |limit: Duration| if hurry { Duration::ZERO } else { limit };
        Wish {
            copies: unless(ends, self.policy.scaler().copies(&self.config.scale)),
            warm: unless(ends, self.policy.scaler().warm(&self.config.scale)),
            limit: self.config.scale.max,
            spec: self.spec.clone(),
            overlap,
            apart: apart.collect(),
            spares: unless(ends || !spared, self.config.scale.spares),
            spare_kind: self.config.scale.spare_kind,
            drain_limit: patience(backend.drain_limit),
            stop_grace: patience(backend.stop_grace),
        }
    }

    /// Copies wanted, whether they may start by now or not.
    pub(super) fn desired(&self, closing: Option<&Closing>) -> u16 {
        if closing.is_some() || self.leaving {
            return 0;
        }
        self.policy.scaler().desired(&self.config.scale)
    }

    /// For a slot, or for a spare from `FIRST_SPARE` on.
    pub(super) fn order(&self, number: u16) -> Order {
        let slot = (number < FIRST_SPARE).then_some(number);
        let way = self.delivery_to(number).way;
        let spec = self
            .apart
            .get(&number)
            .map_or(&self.spec, |apart| &apart.spec);
        Order {
            service: self.config.name.clone(),
            slot,
            gated: slot.is_none() && self.config.scale.spare_kind == SpareKind::Gated,
            slot_port: slot.map_or(0, |slot| self.config.start_port.saturating_add(slot)),
            backend: Arc::clone(&self.backend),
            direct: way == Way::Direct,
            publish: publish_on(self.config.publish, way),
            spec: spec.clone(),
        }
    }

    /// Remembers the totals for the rates.
    pub(super) fn remember(&mut self, now: Moment) {
        let responses = responses(&self.totals);
        self.history
            .push_back((now, self.totals.requests, responses));
        while self.history.len() > 2
            && self
                .history
                .get(1)
                .is_some_and(|(at, ..)| now.saturating_sub(*at) >= RATE_SPAN)
        {
            self.history.pop_front();
        }
    }

    /// Requests and responses per second.
    pub(super) fn rates(&self) -> (f64, f64) {
        let (Some(first), Some(last)) = (self.history.front(), self.history.back()) else {
            return (0.0, 0.0);
        };
        let span = last.0.saturating_sub(first.0).as_secs_f64();
        if span <= 0.0 {
            return (0.0, 0.0);
        }
        let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / span;
        (rate(first.1, last.1), rate(first.2, last.2))
    }
}

pub(super) fn responses(counters: &SlotCounters) -> u64 {
    counters.responses.iter().sum()
}

/// Delivery `port` reaches a backend on the host's own addresses, so that is where Docker has to
/// publish unless the file says that nobody outside is meant to come in.
const fn publish_on(publish: Publish, way: Way) -> PublishOn {
    match (publish, way) {
        (Publish::None, Way::Direct) => PublishOn::Nowhere,
        (Publish::Localhost, _) => PublishOn::Localhost,
        (Publish::None, Way::Port) | (Publish::All, _) => PublishOn::All,
    }
}

/// Digest of what a backend is made from. How it is probed, drained and counted is not part of it:
/// those change without a new backend.
fn spec(service: &ServiceConfig, kind: RuntimeKind, way: Way) -> String {
    let backend = &service.backend;
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "{} {:?} {} {:?} {} {:?} {} {} {:?}",
        kind.name(),
        backend.image,
        backend.port,
        backend.command,
        service.start_port,
        backend.env,
        backend.memory,
        backend.cpus,
        publish_on(service.publish, way),
    );
    // Delivery by port adds nothing: backends of versions that knew no other way are kept.
    if way == Way::Direct {
        text.push_str(" direct");
    }
    for volume in &backend.volumes {
        let _ = write!(text, " {:?} {:?}", volume.source, volume.target);
    }
    format!("{:016x}", fnv1a(text.as_bytes()))
}

/// FNV-1a, 64 bits: backends carry the digest as a label, so it must not change between builds.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
