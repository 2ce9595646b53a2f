//! The tables of `docs/faults.md`: the effect of each fault on a store, and what an operator of a
//! fleet sees of it.
//!
//! Runs for minutes, therefore only on request: `make faults` prints the tables and writes the
//! file. It fails if a fault costs an acknowledged write, an event or a deadline, if a fleet does
//! not recover, or if a fault is not reported.

use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::observer::{self, Sight};
use crate::support::fault_list::{self, Fault};
use crate::support::faults::Row;
use crate::support::nats_binary::NEWEST;

/// Number of concurrent measurements: they mostly wait.
const AT_ONCE: usize = 4;

/// Long enough for everything that an idle fleet does periodically.
const QUIET: Duration = Duration::from_secs(25);

/// `DIVVY_FAULTS=cut|kill` measures only the faults whose name contains one of these, prints every
/// log line, and does not write the document.
#[test]
fn every_fault_loses_no_write_and_no_event_and_misses_no_deadline() {
    let only = std::env::var("DIVVY_FAULTS").ok();
    let is_wanted = |fault: &Fault| {
        let named = |only: &String| only.split('|').any(|part| fault.name.contains(part));
        only.as_ref().is_none_or(named)
    };
    // First the baseline.
    let mut faults = vec![fault_list::nothing(QUIET)];
    faults.extend(fault_list::all().into_iter().filter(is_wanted));
    let measured = measure(&faults);
    let quiet = measured[0].as_ref().expect("measured").1.to_quiet();
    let mut costs = format!("{}\n", Row::HEAD);
    let mut sights = format!("{}\n", Sight::HEAD);
    for (row, sight) in measured.iter().flatten() {
        costs.push_str(&format!("{row}\n"));
        sights.push_str(&format!("{}\n", sight.row(&quiet)));
        if only.is_some() {
            println!("{}", sight.log());
        }
    }
    println!("{costs}\n{sights}");
    for (row, sight) in measured.iter().flatten() {
        row.check();
        sight.check(&quiet);
    }
    assert!(measured.iter().all(Option::is_some), "see above");
    if only.is_none() {
        write(&[("table", &costs), ("seen", &sights)]);
    }
}

/// A failed fault does not hide the results of others.
fn measure(faults: &[Fault]) -> Vec<Option<(Row, Sight)>> {
    let measured: Vec<Mutex<_>> = faults.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    let Some(fault) = faults.get(index) else {
                        return;
                    };
                    let seen =
                        panic::catch_unwind(AssertUnwindSafe(|| observer::observe(fault, NEWEST)));
                    let received = match &seen {
                        Ok((row, _)) => row.to_string(),
                        Err(_) => format!("{} FAILED", fault.name),
                    };
                    eprintln!("{} of {}: {received}", index + 1, faults.len());
                    *measured[index].lock().expect("a row") = seen.ok();
                }
            });
        }
    });
    let measured = measured.into_iter();
    measured
        .map(|row| row.into_inner().expect("a row"))
        .collect()
}

/// Replaces the tables in the document.
fn write(tables: &[(&str, &str)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/faults.md");
    let mut text = std::fs::read_to_string(&path).expect("the document");
    for (name, table) in tables {
        let start = format!("<!-- {name} -->\n");
        let (before, rest) = text.split_once(&start).expect("its start");
        let (_, after) = rest.split_once("<!-- end -->").expect("its end");
        text = format!("{before}{start}{table}<!-- end -->{after}");
    }
    std::fs::write(&path, text).expect("the document is written");
}
