//! The way of a tick from the control thread to the recorder.

use std::sync::Arc;
use std::time::Instant;

use mfpo_node::control_loop::{ControlLoop, Decision};
use mfpo_node::metrics::latencies;
use mfpo_node::recording::tick::PROBING;
use mfpo_node::recording::{TickStream, TickTap, tick_ring};
use mfpo_policy::spec::CommandInterface;

use super::recording::context;
use super::support::{allocations, at, best_of, control_loop, policy, robot, send};

#[test]
fn noting_a_tick_allocates_nothing_and_a_full_ring_is_counted() {
    let spec = robot(CommandInterface::Effort);
    let (mut tap, mut stream) = tick_ring(&spec);
    let (mut control, mut states) = control_loop(&spec);
    let mut note = |k: u32| {
        let now = at(20.0 * f64::from(k));
        send(&mut states, now, &["a", "b"], &[0.1, 0.1], &[0.0, 0.0]).unwrap();
        let Decision::Command(tick) = control.step(&states, now) else {
            panic!("nothing commanded")
        };
        allocations(|| tap.note(&tick, context(u64::from(k), now)))
    };
    let room = 256;
    assert!((0..room + 44).all(|k| note(k) == 0));
    assert_eq!(
        (stream.waiting(), stream.take_lost(), stream.take_lost()),
        (256, 44, 0)
    );
    let read = |stream: &mut TickStream| stream.read(|slot| slot.message().sequence);
    assert_eq!(
        std::iter::from_fn(|| read(&mut stream)).collect::<Vec<_>>(),
        (0..256).collect::<Vec<_>>()
    );
    assert_eq!(note(1000), 0);
    assert_eq!(read(&mut stream), Some(1000));
    assert!(!stream.has_ended());
    drop(tap);
    assert!(stream.has_ended());
}

#[test]
fn swaps_beside_a_full_ring_free_nothing_on_the_control_thread() {
    let spec = robot(CommandInterface::Effort);
    let (mut tap, mut stream) = tick_ring(&spec);
    let (mut control, mut states) = control_loop(&spec);
    let mut k = 0u32;
    let mut note = |control: &mut ControlLoop, tap: &mut TickTap| {
        k += 1;
        let now = at(20.0 * f64::from(k));
        send(&mut states, now, &["a", "b"], &[0.1, 0.1], &[0.0, 0.0]).unwrap();
        let Decision::Command(tick) = control.step(&states, now) else {
            panic!("nothing commanded")
        };
        allocations(|| tap.note(&tick, context(u64::from(k), now)))
    };
    (0..256).for_each(|_| assert_eq!(note(&mut control, &mut tap), 0));
    let mut identities = vec![Arc::downgrade(control.slot().current().identity())];
    // The service frees each policy as soon as the loop gives it back: whoever still names one is its last owner.
    for version in 2..=6 {
        let next = policy(&spec, version);
        identities.push(Arc::downgrade(next.identity()));
        drop(control.swap(next));
        assert_eq!(note(&mut control, &mut tap), 0, "version {version}");
    }
    assert_eq!((stream.waiting(), stream.take_lost()), (256, 5));
    let is_there: Vec<bool> = identities.iter().map(|i| i.upgrade().is_some()).collect();
    assert_eq!(
        is_there,
        [true, false, false, false, true, true],
        "only the ticks that wait and the loop name policies"
    );
    while stream
        .read(|slot| assert_eq!(slot.message().version, 1))
        .is_some()
    {}
    assert!(
        identities[0].upgrade().is_none(),
        "the reader frees what nobody else has"
    );
    assert_eq!(note(&mut control, &mut tap), 0);
    assert_eq!(stream.read(|slot| slot.message().version), Some(6));
}

#[test]
fn a_tick_is_recorded_as_it_was() {
    let spec = robot(CommandInterface::Effort);
    let (mut control, mut states) = best_of(4, &spec);
    let (mut tap, mut stream) = tick_ring(&spec);
    let now = at(20.0);
    send(&mut states, now, &["a", "b"], &[0.3, 0.1], &[0.5, 0.0]).unwrap();
    let Decision::Command(tick) = control.step(&states, now) else {
        panic!("nothing commanded")
    };
    tap.note(&tick, context(5, now));
    let message = stream.read(|slot| slot.message()).unwrap();
    let asked = tick.asked.unwrap();
    assert_eq!(message.observation, asked.observation);
    assert_eq!((message.draw, message.depth()), (asked.draw, Some(asked.depth)));
    assert_eq!(
        (&message.action[..], &message.command_raw[..]),
        (tick.action, tick.raw)
    );
    assert_eq!(message.command, tick.command.values());
    let rules: Vec<u8> = tick
        .command
        .rules()
        .iter()
        .map(|r| r.map_or(0, |r| r as u8 + 1))
        .collect();
    assert_eq!((message.rules, message.fallback, message.sequence), (rules, 0, 5));
    assert_eq!((message.run.as_str(), message.version), ("run", 1));
    let command = control.stop(&states, at(0.0)).unwrap().0.values().to_vec();
    tap.note_other(u8::MAX, &control, None, context(6, now));
    let message = stream.read(|slot| slot.message()).unwrap();
    assert_eq!((message.depth(), message.fallback), (None, u8::MAX));
    assert_eq!((&message.command_raw, &message.command), (&command, &command));
    assert_eq!((message.run.as_str(), message.version), ("run", 1));
    assert!(message.observation.is_empty());
    tap.note_other(PROBING, &control, Some(&[0.25, -0.25]), context(7, now));
    let message = stream.read(|slot| slot.message()).unwrap();
    assert_eq!(message.command_raw, [0.25, -0.25]);
    assert_eq!((&message.command, message.fallback), (&command, PROBING));
}

#[test]
fn noting_a_tick_takes_no_more_than_a_few_microseconds() {
    let spec = robot(CommandInterface::Effort);
    let (mut tap, mut stream) = tick_ring(&spec);
    let (mut control, mut states) = control_loop(&spec);
    let mut took = latencies();
    for k in 0..20_000 {
        let now = at(20.0 * f64::from(k));
        send(&mut states, now, &["a", "b"], &[0.1, 0.1], &[0.0, 0.0]).unwrap();
        let Decision::Command(tick) = control.step(&states, now) else {
            panic!("nothing commanded")
        };
        let context = context(k as u64, now);
        let began = Instant::now();
        tap.note(&tick, context);
        took.saturating_record(began.elapsed().as_nanos() as u64);
        stream.read(|_| ()).expect("a tick");
    }
    let quantile = |part: f64| took.value_at_quantile(part);
    println!(
        "noting a tick: p50 {} ns, p99 {} ns",
        quantile(0.5),
        quantile(0.99)
    );
    assert!(quantile(0.5) < 5_000, "{} ns", quantile(0.5));
}
