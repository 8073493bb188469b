//! A model check of what several CPUs do to the flow table at once: insert, transition, evict, read.
//!
//! Compiled here are the very files of the crate that share memory (`shared`, `table`, `engine`,
//! `books`), on loom's atomic words in place of the host's: loom runs a scenario once for every order
//! of the CPUs' accesses, and every value that C++11 lets a load give, that can make a difference.
//!
//! Modelled: two CPUs, or one and a reader, on one set of four slots, one lock word or two, and one service,
//! with at most [`SWITCHES`] changes between CPUs that neither asked for (one for a reader of the table,
//! whose loads have thousands of outcomes, and for two evictions). Evictions by one CPU beside another's
//! changes read too much for every order of memory: there loads give the latest value, and only the orders
//! of accesses vary. Each test of a fault shows that the check sees what that fault does.
//!
//! Not modelled: several lock words, sets and services, and the services' completions by time
//! (`tests/stress.rs` has them), the IPv6 table (the same code), the hot path's counting into a slot it does
//! not own (allowed to hit the next owner), answers from elsewhere, and patience: the model's CPUs give up
//! after the looks of [`spin`].

#![expect(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the model takes the crate's files whole, and needs a part"
)]
#![expect(clippy::duplicate_mod, reason = "two files taken whole look for their tests at one place")]

mod atomic;
mod audit;
mod packets;
mod world;

#[path = "../../src/books.rs"]
mod books;
#[path = "../../src/engine.rs"]
mod engine;
#[path = "../../src/shared.rs"]
mod shared;
#[path = "../../src/table.rs"]
mod table;

use handshake_common::{
    abi, below, flow, latency, masked, opaque, opaque_unless_known, record, shifted, sign, tcp, udp, verdict,
    wire,
};

use abi::Counter;
use atomic::{Fault, inject, keep_memory_in_order};
use books::Books;
use packets::{ack, datagram, rst, syn, syn_ack, time};
use record::Now;
use shared::Shared64;
use wire::Packet;
use world::World;

/// As in the crate, but fewer: every look is one more place where a CPU can be stopped.
mod spin {
    pub(crate) const LOOKS: u32 = 2;
    pub(crate) const PAUSED_LOOKS: u32 = 2;
    pub(crate) const TRIES: u32 = 2;
    pub(crate) const READ_TRIES: u32 = 1;
}

/// As in the crate.
const fn low_half(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

/// How often loom takes the processor from a CPU that could go on. Most faults need one or two
/// (Musuvathi and Qadeer, "Iterative context bounding", 2007).
const SWITCHES: usize = 2;

/// Runs a scenario in every order.
fn check(switches: usize, scenario: impl Fn() + Sync + Send + 'static) {
    let scenario = std::sync::Arc::new(scenario);
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(switches);
    model.max_branches = 20_000;
    let runs = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = std::sync::Arc::clone(&runs);
    let begun = std::time::Instant::now();
    model.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let scenario = std::sync::Arc::clone(&scenario);
        world::join(world::spawn(move || scenario()));
        atomic::forget();
    });
    println!("{} runs in {:?}", runs.load(std::sync::atomic::Ordering::Relaxed), begun.elapsed());
}

/// A packet at its flow's time.
fn at_its_time(flow: u16, packet: Packet) -> (Now, Packet) {
    (time(flow), packet)
}

/// A set full of half-open attempts, of which flow 1 is the oldest.
fn full() -> World {
    World::after(&[1, 2, 3, 4].map(|flow| at_its_time(flow, syn(flow, 0))))
}

#[test]
fn of_one_syn_on_two_cpus_one_is_the_attempt() {
    check(SWITCHES, || {
        let packet = at_its_time(1, syn(1, 0));
        let books = World::after(&[]).race([vec![packet], vec![packet]]);
        assert_eq!(books.of(Counter::Attempts) - books.of(Counter::Untracked), 1);
        assert_eq!(books.of(Counter::Copies) + books.of(Counter::Contended), 1);
    });
}

#[test]
fn of_two_attempts_of_one_end_the_first_is_superseded() {
    check(SWITCHES, || {
        let packets = [0, 1].map(|attempt| vec![at_its_time(1, syn(1, attempt))]);
        let books = World::after(&[]).race(packets);
        assert_eq!(books.of(Counter::Attempts), 2);
        assert_eq!(books.of(Counter::Superseded) + books.of(Counter::Contended), 1);
        assert_eq!(books.of(Counter::Untracked), books.of(Counter::Contended));
    });
}

#[test]
fn a_handshake_completes_once() {
    check(SWITCHES, || {
        let begun = [syn(1, 0), syn_ack(1, 0)].map(|packet| at_its_time(1, packet));
        let packet = at_its_time(1, ack(1, 0));
        let books = World::after(&begun).race([vec![packet], vec![packet]]);
        assert_eq!((books.of(Counter::Attempts), books.of(Counter::Completed)), (1, 1));
    });
}

#[test]
fn an_attempt_is_answered_or_refused_and_never_both() {
    check(SWITCHES, || {
        let packets = [syn_ack(1, 0), rst(1, 0)].map(|packet| vec![at_its_time(1, packet)]);
        let books = World::after(&[at_its_time(1, syn(1, 0))]).race(packets);
        let refused = books.of(Counter::EnteredRefused);
        assert_eq!(
            books.of(Counter::OpenNoAck) + books.of(Counter::Refused) + books.of(Counter::ResponderAborted),
            1
        );
        assert!(refused <= 1 && books.of(Counter::Revised) <= refused);
    });
}

#[test]
fn two_newcomers_push_out_two_records() {
    keep_memory_in_order();
    check(1, || {
        let packets = [5, 6].map(|flow| vec![at_its_time(flow, syn(flow, 0))]);
        let books = full().with_a_stripe_a_cpu().race(packets);
        assert_eq!(books.of(Counter::Attempts), 4 + 2);
        assert_eq!(books.of(Counter::Evicted) + books.of(Counter::Contended), 2);
        assert_eq!(books.of(Counter::Untracked), books.of(Counter::Contended));
        assert_eq!(books.of(Counter::EvictedHalfOpen), books.of(Counter::Evicted));
    });
}

#[test]
fn a_record_that_is_pushed_out_while_it_changes_is_counted_as_it_was() {
    keep_memory_in_order();
    check(SWITCHES, || {
        let packets = [vec![at_its_time(5, syn(5, 0))], vec![at_its_time(1, syn_ack(1, 0))]];
        let books = full().race(packets);
        assert_eq!(
            books.of(Counter::Evicted) + books.of(Counter::Untracked) + 4,
            books.of(Counter::Attempts)
        );
        if books.of(Counter::Contended) == 0 {
            assert_eq!(books.of(Counter::Evicted), 1);
        }
    });
}

#[test]
fn of_one_service_on_two_cpus_there_is_one_row() {
    check(SWITCHES, || {
        World::after(&[]).claim(syn(1, 0));
    });
}

#[test]
fn an_attempt_expires_once() {
    check(SWITCHES, || {
        let (early, late) = ((Now::default(), syn(1, 0)), at_its_time(1, syn(1, 0)));
        let books = World::after(&[early]).expiring(1).race([vec![late], vec![late]]);
        assert_eq!(books.of(Counter::ExpiredNoSynAck), 1);
        assert_eq!(books.of(Counter::Attempts) - books.of(Counter::Untracked), 2);
        assert_eq!(books.of(Counter::Copies) + books.of(Counter::Contended), 1);
    });
}

#[test]
fn of_two_first_datagrams_one_is_the_answer() {
    check(SWITCHES, || {
        let packets = [true, false].map(|from_client| vec![at_its_time(1, datagram(1, from_client))]);
        let books = World::after(&[]).race(packets);
        assert_eq!(books.of(Counter::UdpFlows) - books.of(Counter::UdpUntracked), 1);
        assert_eq!(books.of(Counter::UdpAnswered) + books.of(Counter::Contended), 1);
        assert_eq!(books.of(Counter::UdpPackets) + books.of(Counter::Contended), 2);
    });
}

#[test]
fn a_reader_of_a_record_that_is_pushed_out_sees_one_or_the_other() {
    check(1, || full().watch(0, at_its_time(5, syn(5, 0))));
}

#[test]
fn a_reader_of_a_handshake_sees_each_step_whole() {
    let steps = [syn(1, 0), syn_ack(1, 0), ack(1, 0)].map(|packet| at_its_time(1, packet));
    for done in 1..steps.len() {
        check(1, move || World::after(&steps[..done]).watch(0, steps[done]));
    }
}

#[test]
#[should_panic(expected = "torn")]
fn without_the_readers_fences_a_record_is_torn() {
    inject(Fault::NoReadFence);
    check(1, || full().watch(0, at_its_time(5, syn(5, 0))));
}

#[test]
#[should_panic(expected = "torn")]
fn without_the_writers_fence_a_record_is_torn() {
    inject(Fault::NoWriteFence);
    check(1, || full().watch(0, at_its_time(5, syn(5, 0))));
}

#[test]
#[should_panic(expected = "the gauge of SynReceived and the table")]
fn without_the_exchange_a_transition_is_counted_twice() {
    inject(Fault::NoExchange);
    check(SWITCHES, || {
        let begun = [syn(1, 0), syn_ack(1, 0)].map(|packet| at_its_time(1, packet));
        let packet = at_its_time(1, ack(1, 0));
        World::after(&begun).race([vec![packet], vec![packet]]);
    });
}

#[test]
#[should_panic(expected = "a key is in the table twice")]
fn without_the_lock_word_a_key_is_in_the_table_twice() {
    check(SWITCHES, || {
        let packet = at_its_time(1, syn(1, 0));
        World::after(&[]).with_a_stripe_a_cpu().race([vec![packet], vec![packet]]);
    });
}

/// A CPU makes pairs while a reader copies its block three times, as an agent does where a copy has no order:
/// the marker behind a pair counts by the first copy, the gauges by the second, the marker before a pair by the
/// third. An accepted copy balances. One copy from the first word to the last has all that order, and more.
fn read_while_pairs_are_made() {
    check(SWITCHES, || {
        let books = std::sync::Arc::new(Books::new());
        let word = |books: &Books, place: Counter| books.words()[place as usize].load();
        let copy = move |books: &Books| {
            let end = word(books, Counter::End);
            shared::read_fence();
            let gauges = [Counter::Attempts, Counter::Evicted, Counter::OpenNoSynAck];
            let gauges = gauges.map(|place| word(books, place));
            shared::read_fence();
            (end, gauges, word(books, Counter::Begin))
        };
        copy(&books);
        let writer = std::sync::Arc::clone(&books);
        let writer = world::spawn(move || {
            writer.enter(Counter::Attempts as usize, Counter::OpenNoSynAck as usize);
            writer.transfer(Counter::OpenNoSynAck as usize, Counter::Evicted as usize);
        });
        let reader = world::spawn(move || {
            let (end, [attempts, evicted, open], begin) = copy(&books);
            assert!(end != begin || attempts == evicted.wrapping_add(open), "half a pair was accepted");
        });
        world::join(writer);
        world::join(reader);
    });
}

#[test]
fn a_reader_of_the_books_accepts_no_half_pair() {
    read_while_pairs_are_made();
}

#[test]
#[should_panic(expected = "half a pair was accepted")]
fn without_the_writers_fences_half_a_pair_is_accepted() {
    inject(Fault::NoWriteFence);
    read_while_pairs_are_made();
}

#[test]
#[should_panic(expected = "half a pair was accepted")]
fn without_the_readers_order_half_a_pair_is_accepted() {
    inject(Fault::NoReadFence);
    read_while_pairs_are_made();
}

/// Two CPUs count in turn under a lock word, whose release follows a swap as that of a new record does.
fn count_under_a_lock_word() {
    check(SWITCHES, || {
        let words = std::sync::Arc::new([const { Shared64::new(0) }; 4]);
        words.iter().for_each(|word| _ = word.load());
        let cpus = [2, 3].map(|own| {
            let words = std::sync::Arc::clone(&words);
            world::spawn(move || {
                let [lock, count, ..] = &*words;
                if lock.compare_exchange(0, 1) {
                    count.store(count.load() + 1);
                    words[own].swap(1);
                    lock.release();
                }
            })
        });
        cpus.into_iter().for_each(world::join);
        let [_, count, took, other] = &*words;
        assert_eq!(count.load(), took.load() + other.load(), "a count was lost");
    });
}

/// A CPU takes a slot, writes two words and gives it back, while a reader copies them between two equal tags.
fn read_two_words_of_a_slot() {
    check(SWITCHES, || {
        const LOCKED: u64 = 1;
        let words = std::sync::Arc::new([const { Shared64::new(0) }; 3]);
        words.iter().for_each(|word| _ = word.load());
        let written = std::sync::Arc::clone(&words);
        let writer = world::spawn(move || {
            let [tag, one, other] = &*written;
            assert!(tag.compare_exchange(0, LOCKED), "no other CPU takes it");
            one.store(1);
            other.store(1);
            tag.swap(2);
        });
        let reader = world::spawn(move || {
            let [tag, one, other] = &*words;
            let before = tag.load();
            shared::read_fence();
            let copy = (one.load(), other.load());
            shared::read_fence();
            assert!(before == LOCKED || tag.load() != before || copy.0 == copy.1, "torn: {copy:?}");
        });
        world::join(writer);
        world::join(reader);
    });
}

#[test]
fn two_words_of_a_slot_are_read_whole() {
    read_two_words_of_a_slot();
}

#[test]
fn what_is_written_under_a_lock_word_is_seen_under_it() {
    count_under_a_lock_word();
}

/// The lines of `shared.rs` that ask for an order, each with its number.
fn lines_with_an_order() -> Vec<(u32, &'static str)> {
    let asks = |line: &str| line.contains("Ordering::Acquire") || line.contains("Ordering::Release");
    let lines = (1..).zip(include_str!("../../src/shared.rs").lines());
    lines.filter(|(_, line)| asks(line)).collect()
}

/// Whether the fault makes one of the scenarios fail.
fn is_seen(fault: Fault) -> bool {
    let scenarios: [fn(); 7] = [
        read_while_pairs_are_made,
        count_under_a_lock_word,
        read_two_words_of_a_slot,
        || check(SWITCHES, || _ = World::after(&[]).claim(syn(1, 0))),
        || {
            check(SWITCHES, || {
                _ = World::after(&[]).race([1, 1].map(|flow| vec![at_its_time(flow, syn(flow, 0))]))
            })
        },
        || check(1, || World::after(&[at_its_time(1, syn(1, 0))]).watch(0, at_its_time(1, syn_ack(1, 0)))),
        || check(1, || full().watch(0, at_its_time(5, syn(5, 0)))),
    ];
    scenarios.into_iter().any(|scenario| {
        let run = move || {
            inject(fault);
            scenario();
        };
        std::thread::spawn(run).join().is_err()
    })
}

#[test]
fn no_order_of_the_words_can_be_left_out() {
    let lines = lines_with_an_order();
    assert!(lines.len() >= 8, "{lines:?}");
    for (number, line) in lines {
        assert!(is_seen(Fault::NoOrderIn(number)), "no scenario needs line {number}: {line}");
    }
}
