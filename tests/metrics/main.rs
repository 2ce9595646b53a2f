//! What a scrape gets of a real calculator, and what the dashboard and the alerts make of it.
#![cfg(feature = "metrics")]

mod dashboards;
mod managers;
mod page;
mod run;
#[allow(dead_code)] // each test program uses some of it
#[path = "../calculator/support.rs"]
mod support;
