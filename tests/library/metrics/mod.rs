//! The scraped metrics of a real calculator, and their use by the dashboard and the alerts.

mod dashboards;
mod managers;
mod page;
mod run;
