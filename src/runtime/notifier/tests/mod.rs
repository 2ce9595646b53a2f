#[cfg(divvy_loom)]
pub(super) mod loom_primitives;

use std::sync::Arc;

use super::*;

/// An event of a hub whose subscribers start without a state.
#[derive(Debug)]
enum Step {
    Number(u32),
    Lagged,
}

impl Notification for Step {
    type EventFilter = ();
    type Current = ();

    fn is_wanted(&self, (): ()) -> bool {
        true
    }

    fn introduce((): &()) -> Vec<Self> {
        Vec::new()
    }

    fn note(&self, (): &mut ()) {}

    fn lagged(_: u64) -> Self {
        Self::Lagged
    }

    fn is_last(&self) -> bool {
        false
    }
}

fn hub() -> Arc<Hub<Step>> {
    Arc::new(Hub::new(1, (), 16))
}

#[cfg(not(divvy_loom))]
mod repeated {
    use super::*;

    const CYCLES: u32 = 20_000;

    /// Longer than a cycle takes on a busy machine.
    const CYCLE_MAX: Duration = Duration::from_secs(10);

    #[test]
    fn wait_reports_timeout_and_close_as_different_errors() {
        let hub = hub();
        let events = hub.events(());
        let wait = || events.recv_timeout(Duration::ZERO).map(|_| ());
        assert_eq!(wait(), Err(RecvError::TimedOut));
        hub.publish(Step::Number(1));
        hub.close_receivers();
        assert_eq!(wait(), Ok(()), "the backlog is delivered first");
        assert_eq!(wait(), Err(RecvError::Closed));
    }

    #[test]
    fn wake_that_meets_an_event_always_reaches_the_reader() {
        let hub = hub();
        let events = Arc::new(hub.events(()));
        let (report, woken) = crossbeam_channel::bounded(1);
        let reader = {
            let events = Arc::clone(&events);
            std::thread::spawn(move || {
                let mut next = 0;
                loop {
                    match events.poll(None) {
                        Polled::Event(step) => {
                            assert!(matches!(*step, Step::Number(number) if number == next));
                            next += 1;
                        }
                        Polled::Woken => report.send(()).unwrap(),
                        Polled::Closed => return,
                        Polled::TimedOut => panic!("unexpected timeout"),
                    }
                }
            })
        };
        for cycle in 0..CYCLES {
            hub.publish(Step::Number(cycle));
            events.wake();
            assert_eq!(woken.recv_timeout(CYCLE_MAX), Ok(()), "cycle {cycle}");
        }
        events.close();
        reader.join().unwrap();
    }

    #[test]
    fn unsubscribe_that_meets_an_event_always_returns_without_a_running_callback() {
        let hub = hub();
        let (finish, finished) = crate::threads::signal();
        let (_halt, halted) = crate::threads::signal();
        let notifier = {
            let hub = Arc::clone(&hub);
            std::thread::spawn(move || hub.run(&finished, &halted))
        };
        for cycle in 0..CYCLES {
            let owned = Arc::new(());
            let kept = Arc::clone(&owned);
            let subscription = hub.subscribe(
                (),
                Box::new(move |_| {
                    let _running = Arc::clone(&kept);
                }),
            );
            hub.publish(Step::Number(cycle));
            subscription.unsubscribe(CYCLE_MAX).unwrap();
            assert_eq!(Arc::strong_count(&owned), 1, "cycle {cycle}");
        }
        drop(finish);
        notifier.join().unwrap();
    }
}

/// Every order of the steps of the threads, see `make explore`.
#[cfg(divvy_loom)]
mod explored {
    use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};

    use loom::thread;

    use super::*;

    const NO_LIMIT: Duration = Duration::MAX;

    /// Runs the model in every order. A thread that waits forever is an error.
    fn explore(model: impl Fn() + Send + Sync + 'static) {
        explore_within(None, model);
    }

    /// Runs the model in every order with at most this many preemptions of a runnable thread.
    fn explore_within(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
        let orders = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&orders);
        let mut builder = loom::model::Builder::new();
        builder.max_branches = 20_000;
        builder.preemption_bound = preemptions;
        builder.check(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            model();
        });
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        println!("{name}: {} orders", orders.load(Ordering::Relaxed));
    }

    /// As [`Hub::run`].
    fn run_notifier(hub: &Hub<Step>, is_done: impl Fn() -> bool) {
        let mut is_last = false;
        loop {
            while hub.deliver_round() {}
            if is_last || is_done() {
                return;
            }
            is_last = hub.wake_channel.explored.wait();
        }
    }

    fn read_until_woken(events: &Events<Step>) -> u32 {
        let mut count = 0;
        loop {
            match events.poll(None) {
                Polled::Event(_) => count += 1,
                Polled::Woken => return count,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn wake_reaches_a_reader_whatever_event_arrives_at_the_same_time() {
        explore(|| {
            let hub = hub();
            let events = Arc::new(hub.events(()));
            let reader = {
                let events = Arc::clone(&events);
                thread::spawn(move || read_until_woken(&events))
            };
            let publisher = {
                let hub = Arc::clone(&hub);
                thread::spawn(move || hub.publish(Step::Number(1)))
            };
            events.wake();
            let read = reader.join().unwrap();
            publisher.join().unwrap();
            let left = u32::from(events.try_recv().is_some());
            assert_eq!(read + left, 1);
            // One wake is reported once.
            assert!(matches!(
                events.poll(Some(Duration::ZERO)),
                Polled::TimedOut
            ));
        });
    }

    #[test]
    fn wake_that_each_reader_passes_on_reaches_all_readers() {
        explore_within(Some(2), || {
            let hub = hub();
            let events = Arc::new(hub.events(()));
            let readers = [(); 2].map(|()| {
                let events = Arc::clone(&events);
                thread::spawn(move || {
                    read_until_woken(&events);
                    events.wake();
                })
            });
            hub.publish(Step::Number(1));
            events.wake();
            for reader in readers {
                reader.join().unwrap();
            }
        });
    }

    #[test]
    fn close_ends_every_reader() {
        explore(|| {
            let hub = hub();
            let events = Arc::new(hub.events(()));
            let readers = [(); 2].map(|()| {
                let events = Arc::clone(&events);
                thread::spawn(move || while events.recv_timeout(NO_LIMIT).is_ok() {})
            });
            hub.publish(Step::Number(1));
            hub.close_receivers();
            for reader in readers {
                reader.join().unwrap();
            }
            assert!(events.is_closed());
        });
    }

    #[test]
    fn readiness_agrees_with_what_a_poll_returns() {
        struct Last(Arc<AtomicU32>);
        impl Readiness for Last {
            fn set(&self, is_ready: bool) {
                self.0.store(u32::from(is_ready), Ordering::Relaxed);
            }
        }
        explore(|| {
            let hub = hub();
            let events = Arc::new(hub.events(()));
            let is_ready = Arc::new(AtomicU32::new(0));
            events.set_readiness(Last(Arc::clone(&is_ready)));
            let waker = {
                let events = Arc::clone(&events);
                thread::spawn(move || events.wake())
            };
            let reader = {
                let events = Arc::clone(&events);
                thread::spawn(move || drop(events.poll(None)))
            };
            hub.publish(Step::Number(1));
            waker.join().unwrap();
            reader.join().unwrap();
            while is_ready.load(Ordering::Relaxed) == 1 {
                let polled = events.poll(Some(Duration::ZERO));
                assert!(!matches!(polled, Polled::TimedOut));
            }
            assert!(matches!(
                events.poll(Some(Duration::ZERO)),
                Polled::TimedOut
            ));
        });
    }

    #[test]
    fn no_event_waits_for_a_wake_that_was_lost() {
        explore(|| {
            let hub = hub();
            let seen = Arc::new(AtomicU32::new(0));
            let subscription = {
                let seen = Arc::clone(&seen);
                hub.subscribe(
                    (),
                    Box::new(move |step| {
                        let Step::Number(number) = step else {
                            panic!("{step:?}");
                        };
                        assert_eq!(seen.fetch_add(1, Ordering::Relaxed) + 1, *number);
                    }),
                )
            };
            let notifier = {
                let hub = Arc::clone(&hub);
                let seen = Arc::clone(&seen);
                thread::spawn(move || {
                    run_notifier(&hub, || seen.load(Ordering::Relaxed) == 2);
                })
            };
            hub.publish(Step::Number(1));
            hub.publish(Step::Number(2));
            notifier.join().unwrap();
            assert_eq!(hub.callback_panics.load(Ordering::Relaxed), 0);
            subscription.forever();
        });
    }

    /// The captures of a callback: they may be freed after the drop, so nothing may use them then.
    struct Owned {
        is_used: loom::sync::atomic::AtomicBool,
        is_dropped: Arc<AtomicBool>,
    }

    impl Owned {
        fn new() -> (Self, Arc<AtomicBool>) {
            let is_dropped = Arc::new(AtomicBool::new(false));
            let owned = Self {
                is_used: loom::sync::atomic::AtomicBool::new(false),
                is_dropped: Arc::clone(&is_dropped),
            };
            (owned, is_dropped)
        }

        /// Another thread may run between the two steps.
        fn use_it(&self) {
            self.is_used.store(true, Ordering::SeqCst);
            self.is_used.store(false, Ordering::SeqCst);
        }
    }

    impl Drop for Owned {
        fn drop(&mut self) {
            assert!(!self.is_used.load(Ordering::SeqCst), "the callback runs");
            self.is_dropped.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn unsubscribe_returns_after_the_callback_and_all_that_it_owns() {
        explore_within(Some(3), || {
            let hub = hub();
            let (owned, is_dropped) = Owned::new();
            let subscription = hub.subscribe((), Box::new(move |_| owned.use_it()));
            let notifier = {
                let hub = Arc::clone(&hub);
                thread::spawn(move || run_notifier(&hub, || false))
            };
            hub.publish(Step::Number(1));
            subscription.unsubscribe(NO_LIMIT).unwrap();
            assert!(is_dropped.load(Ordering::SeqCst));
            hub.wake_channel.explored.finish();
            notifier.join().unwrap();
            assert_eq!(hub.callback_panics.load(Ordering::Relaxed), 0);
        });
    }

    #[test]
    fn unsubscribe_and_the_end_of_all_subscriptions_both_wait_for_what_the_callback_owns() {
        explore(|| {
            let hub = hub();
            let (owned, is_dropped) = Owned::new();
            let subscription = hub.subscribe((), Box::new(move |_| owned.use_it()));
            let ending = {
                let hub = Arc::clone(&hub);
                thread::spawn(move || Hub::end(hub.take_subscribers()))
            };
            subscription.unsubscribe(NO_LIMIT).unwrap();
            assert!(is_dropped.load(Ordering::SeqCst));
            ending.join().unwrap();
        });
    }

    #[test]
    fn several_threads_may_end_one_subscription_and_each_waits() {
        explore(|| {
            let hub = hub();
            let (owned, is_dropped) = Owned::new();
            let subscription = hub.subscribe((), Box::new(move |_| owned.use_it()));
            let subscription = Arc::new(subscription);
            let other = {
                let subscription = Arc::clone(&subscription);
                let is_dropped = Arc::clone(&is_dropped);
                thread::spawn(move || {
                    subscription.end(NO_LIMIT).unwrap();
                    assert!(is_dropped.load(Ordering::SeqCst));
                })
            };
            subscription.end(NO_LIMIT).unwrap();
            assert!(is_dropped.load(Ordering::SeqCst));
            other.join().unwrap();
        });
    }
}
