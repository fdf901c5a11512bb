//! SYNs for a service without a backend: copied and dropped, known when they come again, bounded,
//! and let in again.

use orch::dataplane::{HoldTerms, Injected};
use orch_common::{
    counter::Reason,
    hold::{HeldSyn, Release},
    layout::program::{INGRESS, VETH},
};
use orch_tests::frame::{
    Tcp,
    flag::{ACK, RST, SYN},
};

use super::world::{DROP, Family, PASS, Talk, V4, V6, World, flow_key, service};

const FAMILIES: [Family; 2] = [V4, V6];
/// The interface by which packets of a trial come.
const LOOPBACK: u32 = 1;
/// No interface has it.
const NOWHERE: u32 = 9999;

/// A service that has slots, none of them in its ring, and holds so many SYNs a second.
fn holding(limit: u32) -> World {
    let mut world = World::with(&service(false));
    world.plane().set_ring(0, &[]).unwrap();
    hold(&mut world, limit);
    world
}

fn hold(world: &mut World, limit: u32) {
    let terms = HoldTerms {
        limit,
        listener: None,
        bridge_listener: None,
    };
    world.plane().set_holding(0, Some(terms)).unwrap();
}

#[track_caller]
fn becomes(world: &mut World, what: &str, syn: &Tcp, verdict: i32, reason: Reason) {
    let before = world.reason(reason);
    world.expect(what, INGRESS, syn, verdict, syn);
    assert_eq!(world.reason(reason), before + 1, "{what}: {reason:?}");
}

#[track_caller]
fn only(world: &mut World) -> HeldSyn {
    let held = world.plane().held();
    assert_eq!(held.len(), 1, "{held:?}");
    held[0]
}

#[test]
fn a_syn_is_held_as_it_came() {
    let mut world = holding(1024);
    for family in FAMILIES {
        for options in [0, 20, 40] {
            for ip_options in [0, 40] {
                let talk = Talk::new(family, 10_000 + 100 * options + ip_options);
                let mut syn = talk.says(SYN, 77, 0);
                syn.options = vec![1; options.into()];
                syn.ip_options = vec![1; ip_options.into()];
                let what = format!("{options} and {ip_options} bytes of options");
                becomes(&mut world, &what, &syn, DROP, Reason::Held);
                let held = only(&mut world);
                assert_eq!(held.bytes(), syn.frame(), "{what}");
                assert_eq!(held.key, flow_key(talk.client, talk.asked), "{what}");
                assert_eq!((held.seq, held.service), (77, 0), "{what}");
                assert!(world.flow(&talk).is_none(), "{what}: no flow yet");
            }
        }
    }
}

#[test]
fn a_repetition_is_known_and_another_connection_is_not() {
    let mut world = holding(1024);
    let talk = Talk::new(V4, 10_000);
    let syn = talk.says(SYN, 77, 0);
    becomes(&mut world, "first", &syn, DROP, Reason::Held);
    for _ in 0..3 {
        becomes(&mut world, "again", &syn, DROP, Reason::HeldAgain);
    }
    only(&mut world);
    let others = [
        talk.says(SYN, 78, 0),
        Talk::new(V4, 10_001).says(SYN, 77, 0),
        Talk::new(V6, 10_000).says(SYN, 77, 0),
    ];
    for other in others {
        becomes(&mut world, "another", &other, DROP, Reason::Held);
        only(&mut world);
    }
}

#[test]
fn only_what_opens_a_connection_to_the_service_is_held() {
    let mut world = holding(1024);
    let talk = Talk::new(V4, 10_000);
    becomes(
        &mut world,
        "ACK",
        &talk.says(ACK, 77, 1),
        PASS,
        Reason::NoFlow,
    );
    becomes(
        &mut world,
        "RST",
        &talk.says(RST, 77, 0),
        PASS,
        Reason::NoFlow,
    );
    let elsewhere = talk.asking((V4.at)(81)).says(SYN, 77, 0);
    world.expect("another port", INGRESS, &elsewhere, PASS, &elsewhere);
    let slot = talk.asking((V4.at)(8000)).says(SYN, 77, 0);
    becomes(&mut world, "a slot", &slot, DROP, Reason::SlotGuard);
    assert!(world.plane().held().is_empty());
}

#[test]
fn nothing_is_held_where_nobody_asks_for_it() {
    let mut world = holding(1024);
    world.plane().set_holding(0, None).unwrap();
    let syn = Talk::new(V4, 10_000).says(SYN, 77, 0);
    becomes(&mut world, "off", &syn, PASS, Reason::NoBackend);
    hold(&mut world, 1024);
    world.plane().set_ring(0, &[1]).unwrap();
    world.arrive(&syn);
    assert_eq!(world.live(), [0, 1, 0], "somebody is there");
    let before = world.reason(Reason::SynAgain);
    world.arrive(&syn);
    assert_eq!(world.reason(Reason::SynAgain), before + 1, "a live flow");
    assert!(world.plane().held().is_empty());
}

/// The SYN of another client.
fn from_anybody(port: u16) -> Tcp {
    Talk::new(V4, port).says(SYN, 1, 0)
}

#[test]
fn one_source_has_a_quarter_of_the_tokens_and_all_together_have_all() {
    let mut world = holding(40);
    let (mut held, mut flood) = (0, 0);
    for port in 0..30 {
        let syn = from_anybody(10_000 + port);
        let before = world.reason(Reason::Held);
        assert_eq!(world.arrive(&syn).verdict, DROP);
        held += world.reason(Reason::Held) - before;
        flood += 1 - (world.reason(Reason::Held) - before);
    }
    // Tokens come back while the test runs: one of a source in 100 ms.
    assert!(
        (10..30).contains(&held) && flood > 0,
        "{held} held, {flood} not"
    );
    assert_eq!(world.reason(Reason::HoldFlood), flood);
    let mut all = 0;
    for source in 10..250_u8 {
        let mut syn = from_anybody(10_000);
        syn.from.set_ip([10, 9, 0, source].into());
        let before = world.reason(Reason::Held);
        world.arrive(&syn);
        all += world.reason(Reason::Held) - before;
    }
    assert!(all < 200, "{all} of 240 sources");
    assert_eq!(world.plane().held().len() as u64, held + all);
}

#[test]
fn a_full_buffer_drops() {
    let mut world = holding(100_000_000);
    let (mut held, mut source) = (0_u64, 0_u32);
    let full = loop {
        source += 1;
        let mut syn = from_anybody(10_000);
        syn.from
            .set_ip(std::net::Ipv4Addr::from(0x0a0a_0000 + source).into());
        assert_eq!(world.arrive(&syn).verdict, DROP);
        if world.reason(Reason::HoldFull) > 0 {
            break syn;
        }
        held += 1;
        assert!(held < 10_000, "never full");
    };
    let mut taken = 0;
    loop {
        let batch = world.plane().held().len() as u64;
        taken += batch;
        if batch == 0 {
            break;
        }
    }
    assert_eq!(taken, held);
    becomes(&mut world, "there is room", &full, DROP, Reason::Held);
}

#[test]
fn a_syn_that_is_too_long_is_left_to_its_client() {
    let mut world = holding(1024);
    let long = Talk::new(V4, 10_000).says(SYN, 77, 0).payload(&[b'x'; 200]);
    becomes(&mut world, "with data", &long, DROP, Reason::HoldFull);
    let short = Talk::new(V4, 10_000).says(SYN, 77, 0);
    becomes(&mut world, "without", &short, DROP, Reason::Held);
}

#[test]
fn a_release_makes_a_repetition_news_again() {
    let mut world = holding(1024);
    let syn = Talk::new(V4, 10_000).says(SYN, 77, 0);
    for (release, result) in [
        (Release::Forget, Injected::Arrived),
        (Release::Arrive, Injected::Lost),
        (Release::LetGo, Injected::Lost),
    ] {
        becomes(&mut world, "held", &syn, DROP, Reason::Held);
        becomes(&mut world, "again", &syn, DROP, Reason::HeldAgain);
        let frame = only(&mut world).bytes().to_vec();
        let done = world.plane().inject(NOWHERE, &frame, release).unwrap();
        assert_eq!(done, result, "{release:?}");
    }
    becomes(&mut world, "held", &syn, DROP, Reason::Held);
}

#[test]
fn what_got_in_by_a_repetition_is_not_sent_on() {
    let mut world = holding(1024);
    let syn = Talk::new(V4, 10_000).says(SYN, 77, 0);
    becomes(&mut world, "held", &syn, DROP, Reason::Held);
    let frame = only(&mut world).bytes().to_vec();
    world.plane().set_ring(0, &[0]).unwrap();
    assert_eq!(world.arrive(&syn).verdict, PASS);
    let done = world
        .plane()
        .inject(LOOPBACK, &frame, Release::Arrive)
        .unwrap();
    assert_eq!(done, Injected::InAlready);
    assert_eq!(world.live(), [1, 0, 0]);
}

#[test]
fn bytes_that_are_no_syn_are_not_sent_on() {
    let mut world = holding(1024);
    let done = world
        .plane()
        .inject(LOOPBACK, &[0; 64], Release::Arrive)
        .unwrap();
    assert_eq!(done, Injected::Lost);
}

/// The only backend refuses: the client hears nothing of it, and its SYN waits.
#[test]
fn a_refused_syn_is_taken_back() {
    for family in FAMILIES {
        let mut world = World::direct();
        world.plane().set_ring(0, &[0]).unwrap();
        hold(&mut world, 1024);
        let talk = Talk::new(family, 10_000);
        let syn = talk.says(SYN, 77, 0);
        world.goes("SYN", &talk, &syn, 0);
        let refusal = talk.answers(0, RST | ACK, 0, 78);
        let before = world.reason(Reason::Held);
        world.expect("RST", VETH, &refusal, DROP, &refusal);
        assert_eq!(world.reason(Reason::Held), before + 1);
        assert_eq!(world.live(), [0, 0, 0]);
        assert!(world.flow(&talk).is_none());
        let held = only(&mut world);
        assert_eq!((held.len, held.seq), (0, 77));
        assert_eq!(held.key, flow_key(talk.client, talk.asked));
        becomes(
            &mut world,
            "the client's repetition",
            &syn,
            DROP,
            Reason::HeldAgain,
        );
        // The slot is passed by until somebody has asked it.
        let other = Talk::new(family, 10_001).says(SYN, 5, 0);
        becomes(&mut world, "the next client", &other, DROP, Reason::Held);
        world.direct_slot(0, 1);
        world.goes(
            "and then",
            &Talk::new(family, 10_002),
            &Talk::new(family, 10_002).says(SYN, 9, 0),
            0,
        );
        // Without anybody who would send it on, the client hears it.
        world.plane().set_holding(0, None).unwrap();
        let third = Talk::new(family, 10_003);
        world.goes("SYN", &third, &third.says(SYN, 77, 0), 0);
        world.comes("RST", &third, &third.answers(0, RST | ACK, 0, 78));
    }
}

/// A SYN that went to a backend which died before it answered arrives once more, for another one.
#[test]
fn a_syn_without_an_answer_is_replayed_once_its_backend_is_dead() {
    for family in FAMILIES {
        let mut world = World::direct();
        hold(&mut world, 1024);
        world.plane().set_ring(0, &[0]).unwrap();
        let lost = Talk::new(family, 10_000);
        let answered = Talk::new(family, 10_001);
        world.goes("SYN", &lost, &lost.says(SYN, 77, 0), 0);
        world.opens(&answered, 1000, 0);
        world.plane().set_ring(0, &[0, 1]).unwrap();
        // Later than an answer could come.
        std::thread::sleep(std::time::Duration::from_millis(40));
        assert_eq!(world.plane().replay().unwrap(), 0, "the slot is well");
        // Somebody else's refusal says that the slot is dead.
        let third = Talk::new(family, 10_002);
        world.plane().set_ring(0, &[0]).unwrap();
        world.goes("SYN", &third, &third.says(SYN, 5, 0), 0);
        let refusal = third.answers(0, RST | ACK, 0, 6);
        world.expect("RST", VETH, &refusal, DROP, &refusal);
        assert_eq!(world.plane().held().len(), 1, "the refused one");
        assert_eq!(world.plane().replay().unwrap(), 1);
        let held = only(&mut world);
        assert_eq!(held.key, flow_key(lost.client, lost.asked));
        world.plane().set_ring(0, &[0, 1]).unwrap();
        let again = lost.says(SYN, 77, 0);
        let before = world.reason(Reason::Moved);
        world.goes("once more", &lost, &again, 1);
        assert_eq!(world.reason(Reason::Moved), before + 1);
        let late = lost.answers(0, SYN | ACK, 500, 78);
        world.expect("a late answer", VETH, &late, DROP, &late);
        world.comes("the answer", &lost, &lost.answers(1, SYN | ACK, 900, 78));
        assert_eq!(world.plane().replay().unwrap(), 0, "nothing is left");
    }
}
