//! The script: what happens to the fleet, and what is expected of it.

use std::time::Duration;

use divvy::error::Code;
use divvy::{MemberChange, Notice, Reason, State, WorkerId};

use super::Early;
use super::fleet::Condition;
use super::stage::Stage;
use super::world::timing;

/// Plays every step.
///
/// # Errors
/// The first thing that was not as expected ends it.
pub fn play(stage: &mut Stage, workers: usize) -> Result<(), Early> {
    cold_start(stage, workers)?;
    scale_up(stage, workers)?;
    leave(stage)?;
    crash(stage)?;
    mass_restart(stage)?;
    if stage.world.can_freeze() {
        outage(stage)?;
    } else {
        stage.skip("store outage", "this server cannot be frozen from here")?;
    }
    take_over(stage)
}

fn cold_start(stage: &mut Stage, workers: usize) -> Result<(), Early> {
    let story = format!("a leader and {workers} workers start from nothing");
    stage.open("cold start", story)?;
    stage.lead("leader-1")?;
    for number in 0..workers {
        start(stage, &worker(number))?;
    }
    expect_plan(stage, Reason::ColdStart)?;
    let once = stage.publications() == 1;
    stage.check("one plan for all of them", once)?;
    stage.close()
}

fn scale_up(stage: &mut Stage, workers: usize) -> Result<(), Early> {
    let newcomers = [worker(workers), worker(workers + 1)];
    let story = format!("{} and {} join", newcomers[0], newcomers[1]);
    stage.open("scale-up", story)?;
    for id in &newcomers {
        start(stage, id)?;
    }
    expect_plan(stage, Reason::PlannedScale)?;
    let once = stage.publications() == 1;
    stage.check("one plan for both of them", once)?;
    let after = stage.owners();
    let to_newcomers = after
        .moved_since(stage.owners_before())
        .all(|(_, owners)| owners.iter().all(|owner| newcomers.contains(owner)));
    stage.check("partitions moved to the newcomers only", to_newcomers)?;
    stage.close()
}

fn leave(stage: &mut Stage) -> Result<(), Early> {
    let leaver = worker(1);
    let story = format!("{leaver} takes its leave: no waiting for a lease, no emergency");
    stage.open("planned leave", story)?;
    stage
        .fleet
        .end(std::slice::from_ref(&leaver), Condition::Left);
    expect_plan(stage, Reason::PlannedScale)?;
    check_only_theirs_moved(stage, &leaver)?;
    stage.close()
}

fn crash(stage: &mut Stage) -> Result<(), Early> {
    let victim = worker(2);
    let story = format!("{victim} falls silent: lost after lease and grace");
    stage.open("crash", story)?;
    stage
        .fleet
        .end(std::slice::from_ref(&victim), Condition::Crashed);
    stage.expect_soon(&format!("{victim} goes missing and is lost"), |stage| {
        stage.told_of(&victim, MemberChange::Missing) && stage.told_of(&victim, MemberChange::Lost)
    })?;
    expect_plan(stage, Reason::Emergency)?;
    check_only_theirs_moved(stage, &victim)?;
    stage.close()
}

fn mass_restart(stage: &mut Stage) -> Result<(), Early> {
    let up = stage.fleet.up();
    let majority = up.len() / 2 + 1;
    let restarting = &up[..majority];
    let story = format!(
        "{majority} of {} crash at once and come back: nothing moves",
        up.len()
    );
    stage.open("mass restart", story)?;
    stage.fleet.end(restarting, Condition::Crashed);
    stage.expect_soon("it is seen as a restart of the fleet", |stage| {
        stage.leader().told(|notice| {
            matches!(notice, Notice::StateChanged(c)
                if c.to == State::Scaling && c.reason == Some(Reason::Restart))
        })
    })?;
    stage.pass(timing().cold_start_window / 2)?;
    for id in restarting {
        start(stage, id)?;
    }
    stage.expect_soon("all are back and the leader rests", |stage| {
        let back = |id| stage.told_of(id, MemberChange::Back);
        restarting.iter().all(back)
            && stage.leader().calculator.state() == State::Idle
            && stage.owners().is_exact(&stage.partitions)
    })?;
    // Time enough for a plan that should not come.
    stage.pass(timing().cooldown)?;
    check_nothing_published(stage)?;
    stage.close()
}

fn outage(stage: &mut Stage) -> Result<(), Early> {
    let timing = timing();
    let silence = timing.heartbeat_ttl + timing.emergency_grace_period * 2;
    let story = format!("nobody reaches the store for {silence:?}: nobody is declared dead");
    stage.open("store outage", story)?;
    stage.leader().freeze();
    stage.fleet.freeze();
    stage.expect_soon("the leader says that it is degraded", |stage| {
        stage.leader().is_degraded
    })?;
    stage.pass(silence)?;
    stage.fleet.thaw();
    stage.leader().thaw();
    stage.expect_soon("it recovers by itself", |stage| !stage.leader().is_degraded)?;
    stage.pass(timing.emergency_grace_period * 2)?;
    let calm = !stage.leader().told(|notice| {
        matches!(
            notice,
            Notice::Member(MemberChange::Missing(_) | MemberChange::Lost(_))
        )
    });
    stage.check("nobody was declared missing or lost", calm)?;
    check_nothing_published(stage)?;
    stage.close()
}

fn take_over(stage: &mut Stage) -> Result<(), Early> {
    let victim = worker(0);
    let frozen = stage.world.can_freeze();
    let what = if frozen {
        "freezes"
    } else {
        "does not know it yet"
    };
    let story = format!("leader-2 takes over, leader-1 {what}, {victim} crashes meanwhile");
    stage.open("take-over", story)?;
    let version = stage.leader().calculator.current_version();
    stage.leader().freeze();
    stage
        .fleet
        .end(std::slice::from_ref(&victim), Condition::Crashed);
    stage.lead("leader-2")?;
    let adopted = stage.leader().calculator.current_version() == version;
    stage.check("the plan in force is adopted, nothing moves", adopted)?;
    expect_plan(stage, Reason::Emergency)?;
    check_only_theirs_moved(stage, &victim)?;
    if let Some(former) = stage.former_leader() {
        former.thaw();
    }
    stage.expect_soon("leader-1 finds out that it was deposed", |stage| {
        stage
            .former_leader()
            .is_some_and(|former| former.told(|n| matches!(n, Notice::LeadershipLost)))
    })?;
    let refusal = stage
        .former_leader()
        .map(|former| former.calculator.trigger_rebalance(Duration::from_secs(2)));
    let refused = matches!(&refusal, Some(Err(error)) if error.code() == Code::Fenced);
    stage.check("leader-1 can publish nothing any more", refused)?;
    stage.close()?;
    stage.retire_former()
}

/// Waits until a plan for exactly the workers that are up is in force, made for this reason.
fn expect_plan(stage: &mut Stage, expected: Reason) -> Result<(), Early> {
    let workers = stage.fleet.up().len();
    let text = format!("{workers} workers share all partitions ({expected})");
    stage.expect_soon(&text, |stage| {
        let published = stage.leader().told(|notice| {
            matches!(notice, Notice::Published { workers: w, reason, .. }
                if *w == workers && *reason == expected)
        });
        published
            && stage.leader().calculator.state() == State::Idle
            && stage.owners().is_exact(&stage.partitions)
    })
}

fn check_only_theirs_moved(stage: &mut Stage, gone: &WorkerId) -> Result<(), Early> {
    let before = stage.owners_before();
    let theirs = before.count_of(std::slice::from_ref(gone));
    let moved = stage.owners().moved_since(before).count();
    let text = format!("only what {gone} held has moved");
    stage.check(&text, moved == theirs)
}

fn check_nothing_published(stage: &mut Stage) -> Result<(), Early> {
    let none = stage.publications() == 0;
    stage.check("nothing was published", none)
}

fn start(stage: &mut Stage, id: &WorkerId) -> Result<(), Early> {
    Ok(stage.fleet.start(&stage.world, id)?)
}

fn worker(number: usize) -> WorkerId {
    // Letters, a hyphen and digits are allowed.
    WorkerId::new(&format!("worker-{number}")).expect("a valid worker id")
}
