//! The script: the steps of the demo and their checks.

use std::time::{Duration, Instant};

use divvy::{CalculatorEvent, ManagerState, MemberChange, Reason, WorkerId};

use super::Early;
use super::fleet::Condition;
use super::stage::Stage;

/// How many workers are restarted one by one.
const ROLLING_MAX: usize = 5;

/// Plays every step.
///
/// # Errors
/// The first thing that was not as expected ends it.
pub fn play(stage: &mut Stage, workers: usize) -> Result<(), Early> {
    cold_start(stage, workers)?;
    scale_up(stage)?;
    leave(stage)?;
    crash(stage)?;
    rolling_restart(stage)?;
    mass_restart(stage)?;
    if stage.world.can_freeze() {
        outage(stage)?;
    } else {
        stage.skip("store outage", "not possible with this server")?;
    }
    leader_lost(stage)?;
    leader_leaves(stage)
}

fn cold_start(stage: &mut Stage, workers: usize) -> Result<(), Early> {
    let story = format!("{workers} workers start; the first plan waits for all of them");
    stage.open("cold start", story)?;
    stage.start(workers)?;
    expect_plan(stage, Reason::ColdStartImmediate)?;
    let once = stage.publications() == 1;
    stage.check("one plan for all workers", once)?;
    stage.close()
}

fn scale_up(stage: &mut Stage) -> Result<(), Early> {
    stage.open("scale-up", "two workers join".into())?;
    let newcomers = stage.start(2)?;
    expect_plan(stage, Reason::PlannedScale)?;
    let once = stage.publications() == 1;
    stage.check("one plan for both workers", once)?;
    let after = stage.owners();
    let to_newcomers = after
        .moved_since(stage.owners_before())
        .all(|(_, owners)| owners.iter().all(|owner| newcomers.contains(owner)));
    stage.check("partitions moved only to the new workers", to_newcomers)?;
    stage.close()
}

fn leave(stage: &mut Stage) -> Result<(), Early> {
    let leaver = follower(stage)?;
    let story = format!("{leaver} leaves: its partitions move at once, without an emergency");
    stage.open("planned leave", story)?;
    end(stage, &leaver, Condition::Left)?;
    expect_plan(stage, Reason::PlannedScale)?;
    check_only_theirs_moved(stage, &leaver)?;
    stage.close()
}

fn crash(stage: &mut Stage) -> Result<(), Early> {
    let victim = follower(stage)?;
    let story = format!("{victim} stops sending heartbeats: declared dead after TTL and grace");
    stage.open("crash", story)?;
    end(stage, &victim, Condition::Crashed)?;
    stage.expect_soon(
        &format!("{victim} is suspected and declared dead"),
        |stage| {
            stage.reports(&victim, MemberChange::Suspected)
                && stage.reports(&victim, MemberChange::Dead)
        },
    )?;
    expect_plan(stage, Reason::Emergency)?;
    check_only_theirs_moved(stage, &victim)?;
    stage.close()
}

fn rolling_restart(stage: &mut Stage) -> Result<(), Early> {
    let leader = leader(stage)?;
    let others = stage.fleet.up().into_iter().filter(|id| *id != leader);
    let mut restarting: Vec<WorkerId> = others.take(ROLLING_MAX - 1).collect();
    restarting.push(leader);
    let story = format!(
        "{} workers restart one by one, the leader last: nothing moves",
        restarting.len()
    );
    stage.open("rolling restart", story)?;
    let mut same_ids = true;
    for id in &restarting {
        end(stage, id, Condition::Kept)?;
        same_ids &= stage.start(1)? == [id.clone()];
    }
    stage.check("each worker has its id again", same_ids)?;
    expect_rest(stage, "each worker has its partitions again, and one leads")?;
    // Long enough for an unwanted plan to appear.
    stage.pass(stage.config.calculator.cooldown)?;
    check_nothing_published(stage)?;
    stage.close()
}

fn mass_restart(stage: &mut Stage) -> Result<(), Early> {
    let leader = leader(stage)?;
    let up = stage.fleet.up();
    let majority = up.len() / 2 + 1;
    let others = up.iter().filter(|id| **id != leader).cloned();
    let restarting: Vec<WorkerId> = others.take(majority).collect();
    let story = format!(
        "{} of {} stop at once and return after the grace: nothing moves",
        restarting.len(),
        up.len()
    );
    stage.open("mass restart", story)?;
    stage.fleet.end(&restarting, Condition::Kept)?;
    stage.expect_soon("it is treated as a restart of the fleet", |stage| {
        stage.received(
            |notice| matches!(notice, CalculatorEvent::StateChanged(c) if c.reason == Some(Reason::Restart)),
        )
    })?;
    stage.pass(stage.config.calculator.cold_start_window / 3)?;
    let mut back = stage.start(restarting.len())?;
    back.sort();
    stage.check("the workers have their ids again", back == restarting)?;
    stage.expect_soon("all workers returned and the leader is idle", |stage| {
        let back = |id| stage.reports(id, MemberChange::Returned);
        restarting.iter().all(back) && stage.is_at_rest()
    })?;
    stage.pass(stage.config.calculator.cooldown)?;
    check_nothing_published(stage)?;
    stage.close()
}

fn outage(stage: &mut Stage) -> Result<(), Early> {
    let timing = &stage.config.calculator;
    let silence = timing.heartbeat_ttl + timing.emergency_grace_period * 2;
    let story = format!("the store is unreachable for {silence:?}: no worker is declared dead");
    stage.open("store outage", story)?;
    let leader = leader(stage)?;
    stage.fleet.freeze_all();
    stage.expect_soon("every worker reports Degraded", |stage| {
        stage.fleet.all_in(|state| state == ManagerState::Degraded)
    })?;
    stage.pass(silence)?;
    let serving = stage.owners().is_exact(&stage.partitions);
    stage.check("each worker keeps its partitions", serving)?;
    let no_leader = stage.fleet.leader().is_none();
    stage.check("no worker leads: no lease could be renewed", no_leader)?;
    // Not all at the same moment.
    stage.fleet.thaw(&leader);
    stage.pass(stage.config.heartbeat_interval)?;
    stage.fleet.thaw_all();
    expect_rest(stage, "all workers recover, and one leads")?;
    stage.pass(stage.config.calculator.emergency_grace_period * 2)?;
    let calm = !stage.received(|notice| {
        matches!(
            notice,
            CalculatorEvent::Member {
                change: MemberChange::Dead,
                ..
            }
        )
    });
    stage.check("no worker was declared dead", calm)?;
    check_nothing_published(stage)?;
    stage.close()
}

fn leader_lost(stage: &mut Stage) -> Result<(), Early> {
    let former = leader(stage)?;
    let can_freeze = stage.world.can_freeze();
    let what = if can_freeze {
        "is disconnected"
    } else {
        "crashes"
    };
    let story = format!("the leader {former} {what}: another worker takes over");
    stage.open("leader lost", story)?;
    if can_freeze {
        stage.fleet.freeze(&former);
    } else {
        end(stage, &former, Condition::Crashed)?;
    }
    let began = Instant::now();
    stage.expect_soon("another worker leads after the lease expires", |stage| {
        stage.fleet.leader().is_some()
    })?;
    stage.note(&format!("new leader after {:.1?}", began.elapsed()))?;
    if can_freeze {
        // It could not renew its lease and stepped down by its own clock.
        let manager = stage.fleet.manager(&former);
        let led = manager.is_some_and(|manager| manager.is_leader());
        stage.check(&format!("{former} stepped down before that"), !led)?;
        let manager = stage.fleet.manager(&former);
        let refusal = manager.map(|m| m.trigger_rebalance(Duration::from_secs(2)));
        let refused = matches!(refusal, Some(Err(_)));
        stage.check(&format!("{former} can no longer publish"), refused)?;
    }
    expect_cover(stage)?;
    check_only_theirs_moved(stage, &former)?;
    stage.close()?;
    end(stage, &former, Condition::Crashed)
}

fn leader_leaves(stage: &mut Stage) -> Result<(), Early> {
    let former = leader(stage)?;
    let story = format!("the leader {former} leaves: it hands over at once");
    stage.open("leader leaves", story)?;
    end(stage, &former, Condition::Left)?;
    let began = Instant::now();
    stage.expect_soon("another worker leads", |stage| {
        stage.fleet.leader().is_some()
    })?;
    stage.note(&format!("new leader after {:.1?}", began.elapsed()))?;
    expect_cover(stage)?;
    check_only_theirs_moved(stage, &former)?;
    stage.close()
}

/// Waits until a plan for exactly the workers that are up is in force, made for this reason.
fn expect_plan(stage: &mut Stage, expected: Reason) -> Result<(), Early> {
    let workers = stage.fleet.up().len();
    let text = format!("{workers} workers share all partitions ({expected})");
    stage.expect_soon(&text, |stage| {
        let published = stage.received(|notice| {
            matches!(notice, CalculatorEvent::Published { workers: w, reason, .. }
                if *w == workers && *reason == expected)
        });
        published && stage.is_at_rest()
    })
}

/// Waits until the partitions of a departed leader have new owners. The reason depends on whether
/// its successor still saw a heartbeat of it.
fn expect_cover(stage: &mut Stage) -> Result<(), Early> {
    stage.expect_soon("the other workers share all partitions", |stage| {
        stage.publications() > 0 && stage.is_at_rest()
    })
}

/// Waits until one worker leads, each partition has an owner, and nothing is pending.
fn expect_rest(stage: &mut Stage, text: &str) -> Result<(), Early> {
    stage.expect_soon(text, Stage::is_at_rest)
}

fn check_only_theirs_moved(stage: &mut Stage, gone: &WorkerId) -> Result<(), Early> {
    let before = stage.owners_before();
    let theirs = before.count_of(std::slice::from_ref(gone));
    let moved = stage.owners().moved_since(before).count();
    let text = format!("only partitions of {gone} moved");
    stage.check(&text, moved == theirs)
}

fn check_nothing_published(stage: &mut Stage) -> Result<(), Early> {
    let none = stage.publications() == 0;
    stage.check("nothing was published", none)
}

fn end(stage: &mut Stage, id: &WorkerId, how: Condition) -> Result<(), Early> {
    Ok(stage.fleet.end(std::slice::from_ref(id), how)?)
}

fn leader(stage: &mut Stage) -> Result<WorkerId, Early> {
    let leader = stage.fleet.leader().cloned();
    leader.ok_or_else(|| Early::Broken("no worker leads".into()))
}

/// The first worker that does not lead.
fn follower(stage: &mut Stage) -> Result<WorkerId, Early> {
    let leader = leader(stage)?;
    let follower = stage.fleet.up().into_iter().find(|id| *id != leader);
    follower.ok_or_else(|| Early::Broken("no other worker".into()))
}
