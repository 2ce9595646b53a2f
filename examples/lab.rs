#[path = "../tests/support/mod.rs"]
mod support;
use divvy::strategy::*;
use std::time::Instant;
use support::*;

fn main() {
    let capped = std::env::var("CAPS").is_ok();
    fn cap(id: &divvy::types::WorkerId) -> f64 {
        let n: usize = id.as_str()[7..].parse().unwrap();
        [1.0, 2.0, 4.0][n % 3]
    }
    let mut s = Sticky::new();
    if capped {
        for w in workers(0..1200) {
            s = s.capacity(w.clone(), cap(&w));
        }
    }
    let arg = std::env::args().nth(1);
    if let Some(a) = arg {
        let kind: &str = Box::leak(a.into_boxed_str());
        let to: usize = std::env::args().nth(2).unwrap().parse().unwrap();
        let mut f = Fleet::new(kind, 100, 3000);
        if capped {
            f.capacity = cap;
        }
        f.step(&s, workers(0..100));
        for _ in 0..2 {
            let v = f.step(&s, workers(0..to));
            println!(
                "{:.3} {:.3} moved {:.4} {} ideal {:.4}",
                v.fullest, v.emptiest, v.moved, v.moved_count, v.ideal
            );
        }
        return;
    }
    if std::env::var("FRESH").is_err() {
        println!("fresh");
        for kind in KINDS {
            for (w, n) in [
                (1, 10),
                (3, 100),
                (10, 500),
                (64, 5000),
                (100, 3000),
                (1000, 100000),
                (7, 70),
                (12, 120),
                (30, 900),
                (20, 300),
                (40, 1600),
            ] {
                let mut f = Fleet::new(kind, w, n);
                if capped {
                    f.capacity = cap;
                }
                let t = Instant::now();
                let v = f.step(&s, workers(0..w));
                let fail = v.fullest > 1.02 || v.emptiest < 0.95;
                println!(
                    "{} {kind} {w}x{n} {:.3} {:.3} F {:.0} {:?}",
                    if fail { "BAD" } else { "ok " },
                    v.fullest,
                    v.emptiest,
                    v.fair,
                    t.elapsed()
                );
            }
        }
    }
    println!("change");
    for kind in ["skew10", "spread", "heavy"] {
        for to in [110, 101, 99, 60, 150] {
            let mut f = Fleet::new(kind, 100, 3000);
            if capped {
                f.capacity = cap;
            }
            f.step(&s, workers(0..100));
            let v = f.step(&s, workers(0..to));
            let h = kind == "heavy";
            let fail = v.fullest > if h { 1.15 } else { 1.05 }
                || v.emptiest < if h { 0.7 } else { 0.85 }
                || v.moved > v.ideal + if h { 0.03 } else { 0.01 };
            let v2 = f.step(&s, workers(0..to));
            println!(
                "{} {kind} 100->{to} {:.3} {:.3} moved {:.4} ideal {:.4} again {:.4} {}",
                if fail { "BAD" } else { "ok " },
                v.fullest,
                v.emptiest,
                v.moved,
                v.ideal,
                v2.moved,
                v2.moved_count
            );
        }
    }
    println!("rounds");
    let only = std::env::var("ONLY").unwrap_or_default();
    for kind in ["equal", "skew10", "spread", "heavy", "mixed"] {
        if !only.is_empty() && only != kind {
            continue;
        }
        for seed in 1..=3u64 {
            let mut r = Random(seed);
            let mut live: Vec<usize> = (0..100).collect();
            let mut next = 100;
            let mut f = Fleet::new(kind, 100, 3000);
            if capped {
                f.capacity = cap;
            }
            f.step(&s, workers(0..100));
            let (mut moved, mut ideal, mut full, mut empty, mut bad) =
                (0.0, 0.0, 0f64, f64::MAX, 0);
            let t = Instant::now();
            for _ in 0..200 {
                let up = if live.len() <= 80 {
                    true
                } else if live.len() >= 120 {
                    false
                } else {
                    r.below(2) == 0
                };
                if up {
                    live.push(next);
                    next += 1;
                } else {
                    let i = r.below(live.len() as u64) as usize;
                    live.swap_remove(i);
                }
                let v = f.step(&s, workers(live.iter().copied()));
                moved += v.moved;
                ideal += v.ideal;
                full = full.max(v.fullest);
                empty = empty.min(v.emptiest);
                if kind == "mixed" {
                    if v.top_counts.1 > v.top_counts.0 + 1 {
                        bad += 1;
                        if std::env::var("BAD").is_ok() {
                            println!(
                                "{:?} of {} {:.4} {:.4}",
                                v.top_counts,
                                live.len(),
                                v.moved,
                                v.ideal
                            );
                        }
                    }
                    continue;
                }
                if std::env::var("BAD").is_ok()
                    && v.fullest > if kind == "heavy" { 1.15 } else { 1.05 }
                {
                    for (w, l) in v.levels.iter().enumerate() {
                        if *l > 1.05 {
                            let mut ws: Vec<i64> = f
                                .partitions
                                .iter()
                                .zip(&f.owners)
                                .filter(|(_, o)| **o == Some(f.workers[w].clone()))
                                .map(|(p, _)| p.weight)
                                .collect();
                            ws.sort();
                            ws.reverse();
                            let n = ws.len();
                            ws.truncate(6);
                            println!(
                                "{kind} W {} F {:.0} level {l:.3} {n} {ws:?}",
                                live.len(),
                                v.fair
                            );
                        }
                    }
                }
                let h = kind == "heavy";
                if v.fullest > if h { 1.15 } else { 1.05 }
                    || v.emptiest < if h { 0.7 } else { 0.85 }
                {
                    bad += 1;
                }
            }
            println!(
                "{kind} {seed} moved/ideal {:.3} full {:.3} empty {:.3} bad {bad} {:?}",
                moved / ideal,
                full,
                empty,
                t.elapsed()
            );
        }
    }
    println!("drift");
    for kind in ["equal", "skew10", "spread", "heavy"] {
        let mut r = Random(5);
        let mut f = Fleet::new(kind, 100, 3000);
        if capped {
            f.capacity = cap;
        }
        f.step(&s, workers(0..100));
        let (mut moved, mut rounds, mut full, mut empty) = (0.0, 0, 0f64, f64::MAX);
        for _ in 0..200 {
            for p in &mut f.partitions {
                p.weight = (p.weight as f64 * (0.9 + 0.2 * r.below(1000) as f64 / 1000.0))
                    .round()
                    .max(1.0) as i64;
            }
            let v = f.step(&s, workers(0..100));
            moved += v.moved;
            if v.moved > 0.0 {
                rounds += 1
            };
            full = full.max(v.fullest);
            empty = empty.min(v.emptiest);
        }
        println!(
            "{kind} moved {:.3} in {rounds} full {:.3} empty {:.3}",
            moved, full, empty
        );
    }
}
