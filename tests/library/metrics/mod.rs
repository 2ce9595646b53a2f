//! What a scrape gets of a real calculator, and what the dashboard and the alerts make of it.

mod dashboards;
mod managers;
mod page;
mod run;
