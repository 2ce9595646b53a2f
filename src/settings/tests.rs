//! Layers, relations and the environment.

use super::*;

#[test]
fn bucket_names_follow_from_the_fleet_unless_they_are_set_in_whatever_order() {
    let mut settings = Settings::new();
    settings.set("election_bucket", "mine").unwrap();
    settings.set("fleet", "orders").unwrap();
    settings.set("heartbeat_bucket", "beats").unwrap();
    let nats = settings.nats();
    let names = [
        &nats.stable_id_bucket,
        &nats.election_bucket,
        &nats.heartbeat_bucket,
        &nats.assignment_bucket,
    ];
    assert_eq!(
        names,
        [
            "divvy-orders-stableid",
            "mine",
            "beats",
            "divvy-orders-assignment"
        ]
    );
    settings
        .merge_json(r#"{"fleet": null, "heartbeat_bucket": null}"#)
        .unwrap();
    assert_eq!(settings.nats().heartbeat_bucket, "parti-heartbeat");
    assert_eq!(settings.nats().assignment_bucket, "parti-assignment");
}

#[test]
fn every_key_round_trips_its_default() {
    let defaults = Values::default();
    let mut names = std::collections::BTreeSet::new();
    for key in KEYS {
        let mut values = Values::default();
        (key.set)(&mut values, &(key.show)(&defaults)).unwrap();
        assert!(values == defaults, "{}", key.name);
        assert!(names.insert(key.name), "{} is there twice", key.name);
        assert!(!key.help.is_empty());
    }
}

/// The table is written by hand; this fails when a field is added and the table is not.
#[test]
fn every_calculator_and_manager_field_has_key() {
    let text = format!("{:?}", ManagerConfig::default());
    let (text, outage) = text.split_once("outage: OutageTiming {").unwrap();
    let outage = outage.split_once('}').unwrap().0.split(',');
    let outage = outage.map(|field| format!("outage_{}", field.trim()));
    let text = text.replace("ManagerConfig { calculator: CalculatorConfig {", "");
    let fields = text.split([',', '}']).map(|field| field.trim().to_owned());
    for field in fields.filter(|f| !f.is_empty()).chain(outage) {
        let name = field.split(':').next().unwrap().trim();
        assert!(keys::find(name).is_some(), "{name} has no key");
    }
}

#[test]
fn preset_fills_unset_values_in_any_order() {
    let mut settings = Settings::new();
    assert_eq!(settings.manager(), defaults());
    settings.set("outage_leave_after", "7s").unwrap();
    settings.set("outage_preset", "aggressive").unwrap();
    settings.set("outage_errors_max", "9").unwrap();
    let config = settings.manager();
    assert_eq!(config.outage.enter_after, Duration::from_secs(5));
    assert_eq!(config.outage.leave_after, Duration::from_secs(7));
    assert_eq!(config.outage.errors_max, 9);
    assert_eq!(config.calculator.recovery_grace(), Duration::from_secs(10));
    settings
        .merge_json(r#"{"outage_preset": null, "outage_errors_max": null}"#)
        .unwrap();
    settings.set("outage_leave_after", "5s").unwrap();
    assert_eq!(settings.manager(), defaults());
}

#[test]
fn manager_grace_follows_heartbeat_unless_set() {
    let mut settings = Settings::new();
    settings.set("heartbeat_interval", "1s").unwrap();
    let grace = |settings: &Settings| settings.manager().calculator.emergency_grace_period;
    assert_eq!(grace(&settings), Duration::from_millis(1_500));
    settings.set("emergency_grace_period", "4s").unwrap();
    assert_eq!(grace(&settings), Duration::from_secs(4));
}

#[test]
fn unknown_name_is_rejected_with_nearest_match() {
    let mut settings = Settings::new();
    for (wrong, right) in [
        ("cooldwon", "cooldown"),
        ("heartbeat-ttl", "heartbeat_ttl"),
        ("HEARTBEAT_TTL", "heartbeat_ttl"),
        ("nats_urls", "nats_url"),
    ] {
        let error = settings.set(wrong, "1s").unwrap_err();
        assert_eq!(error.code(), Code::InvalidConfig);
        let expected = format!("did you mean {right}?");
        assert!(error.to_string().contains(&expected), "{error}");
    }
    let error = settings.set("zzzzqqqq", "1s").unwrap_err();
    assert!(!error.to_string().contains("did you mean"), "{error}");
}

#[test]
fn json_is_applied_completely_or_not_at_all() {
    let mut settings = Settings::new();
    settings
        .merge_json(r#"{"cooldown":"3s","restart_ratio":0.25,"nats_url":["a:1","b:2"],"nats_tls_required":true}"#)
        .unwrap();
    assert_eq!(settings.calculator().cooldown, Duration::from_secs(3));
    assert_eq!(settings.nats().urls, ["a:1", "b:2"]);
    for broken in [
        r#"{"cooldown":"4s","nonsense":1}"#,
        r#"{"cooldown":4}"#,
        r#"{"cooldown":{}}"#,
        r#"{"cooldown":"4s","restart_ratio":"much"}"#,
        "[]",
        "",
        "{",
    ] {
        let error = settings.merge_json(broken).unwrap_err();
        assert_eq!(error.code(), Code::InvalidConfig, "{broken}");
        assert_eq!(settings.calculator().cooldown, Duration::from_secs(3));
    }
    settings.merge_json(r#"{"cooldown":null}"#).unwrap();
    assert_eq!(settings.calculator().cooldown, Duration::from_secs(10));
}

#[test]
fn environment_names_settings_in_upper_case() {
    let mut settings = Settings::new();
    let variables = [
        ("PATH", "/bin"),
        ("DIVVY_COOLDOWN", "2s"),
        ("DIVVY_NAME", ""),
        ("OTHER_COOLDOWN", "9s"),
    ];
    settings.merge_env("DIVVY_", variables).unwrap();
    assert_eq!(settings.calculator().cooldown, Duration::from_secs(2));
}

#[test]
fn dump_shows_values_and_origins_but_no_secret() {
    let mut settings = Settings::new();
    settings.set("nats_password", "hunter2").unwrap();
    settings
        .set("nats_url", "nats://me:hunter2@host:1,host:2")
        .unwrap();
    settings.merge_env("D_", [("D_COOLDOWN", "90s")]).unwrap();
    let dump = settings.dump();
    assert!(!dump.contains("hunter2"), "{dump}");
    let dump: Value = serde_json::from_str(&dump).unwrap();
    assert_eq!(
        dump["cooldown"],
        json!({"value": "1m30s", "origin": "env D_COOLDOWN"})
    );
    assert_eq!(dump["name"], json!({"value": "divvy", "origin": "default"}));
    assert_eq!(dump["nats_url"]["value"], "nats://***@host:1,host:2");
    assert_eq!(dump.as_object().unwrap().len(), KEYS.len());
    assert!(!format!("{settings:?}").contains("hunter2"));
}

/// A range that the table states is one that the library enforces.
#[test]
fn stated_ranges_of_calculator_and_manager_settings_are_enforced() {
    let mut enforced = 0;
    for key in KEYS {
        let outside = match (key.kind, key.range) {
            ("duration", range) if range.starts_with("above 0, up to 366d") => &["0", "8785h"][..],
            ("duration", range) if range.starts_with("up to 366d") => &["8785h"],
            ("integer" | "number", range) if range.starts_with("1 or more") => &["0"],
            ("integer", range) if range.starts_with("2 or more") => &["1"],
            ("number", "0 to 1") => &["-0.1", "1.1"],
            ("number", "0 or more") => &["-0.1"],
            _ => continue,
        };
        for value in outside {
            let mut settings = Settings::new();
            if settings.set(key.name, value).is_err() {
                enforced += 1;
                continue;
            }
            let config = settings.manager();
            let mut violations = config.violations();
            violations.extend(config.calculator.violations());
            let name = key.name.strip_prefix("outage_").unwrap_or(key.name);
            let is_found = violations
                .iter()
                .any(|v| v.field.trim_start_matches("outage.") == name);
            assert!(
                is_found,
                "{} = {value} is accepted: {violations:?}",
                key.name
            );
            enforced += 1;
        }
    }
    assert!(enforced >= 30, "only {enforced} ranges were tried");
}

/// The default manager, with its recovery grace written out.
fn defaults() -> ManagerConfig {
    let mut config = ManagerConfig::default();
    config.calculator.recovery_grace = Some(config.calculator.recovery_grace());
    config
}

#[test]
fn unknown_environment_variable_is_warning_unless_strict() {
    let mut settings = Settings::new();
    let variables = [("DIVVY_COOLDWON", "2s"), ("DIVVY_LEAVE_WINDOW", "3s")];
    let warnings = settings.merge_env("DIVVY_", variables).unwrap();
    assert_eq!(
        warnings,
        [
            "ignoring environment variable DIVVY_COOLDWON: unknown setting \"cooldwon\"; did you mean \
          cooldown?"
        ]
    );
    assert_eq!(settings.calculator().leave_window, Duration::from_secs(3));
    let strict = variables.into_iter().chain([("DIVVY_STRICT", "true")]);
    let mut settings = Settings::new();
    let error = settings.merge_env("DIVVY_", strict).unwrap_err();
    assert_eq!(error.code(), Code::InvalidConfig);
    assert!(error.to_string().contains("DIVVY_COOLDWON"), "{error}");
    assert_eq!(settings.calculator().leave_window, Duration::from_secs(1));
}

/// What Kubernetes injects for the services `divvy` and `divvy-nats`.
#[test]
fn environment_variables_injected_by_kubernetes_are_ignored_even_if_strict() {
    let variables = [
        ("DIVVY_STRICT", "true"),
        ("DIVVY_SERVICE_HOST", "10.0.0.1"),
        ("DIVVY_SERVICE_PORT", "4222"),
        ("DIVVY_SERVICE_PORT_CLIENT", "4222"),
        ("DIVVY_PORT", "tcp://10.0.0.1:4222"),
        ("DIVVY_PORT_4222_TCP", "tcp://10.0.0.1:4222"),
        ("DIVVY_PORT_4222_TCP_PROTO", "tcp"),
        ("DIVVY_PORT_4222_TCP_ADDR", "10.0.0.1"),
        ("DIVVY_NATS_SERVICE_HOST", "10.0.0.1"),
        ("DIVVY_NATS_PORT", "tcp://10.0.0.1:4222"),
        ("DIVVY_NATS_PORT_4222_TCP_PORT", "4222"),
    ];
    let mut settings = Settings::new();
    assert!(settings.merge_env("DIVVY_", variables).unwrap().is_empty());
}

#[test]
fn every_strategy_option_can_be_set_by_name() {
    let mut settings = Settings::new();
    for (name, value) in [
        ("tolerance", "0.1"),
        ("movement_budget", "0.25"),
        ("capacity", "worker-1=2,worker-2=0.5"),
        ("hash_seed", "7"),
        ("virtual_nodes", "40"),
        ("overload_threshold", "1.5"),
        ("extreme_threshold", "3"),
    ] {
        settings.set(name, value).unwrap();
    }
    let mut expected = StrategyOptions {
        tolerance: 0.1,
        movement_budget: 0.25,
        ..StrategyOptions::default()
    };
    let id = |id| crate::types::WorkerId::new(id).unwrap();
    expected.capacity = [(id("worker-1"), 2.0), (id("worker-2"), 0.5)].into();
    expected.hash_seed = 7;
    expected.virtual_nodes = 40;
    expected.overload_threshold = 1.5;
    expected.extreme_threshold = 3.0;
    assert_eq!(*settings.strategy_options(), expected);
    for (name, value) in [
        ("tolerance", "1.1"),
        ("movement_budget", "-1"),
        ("capacity", "worker-1"),
        ("capacity", "worker-1=0"),
        ("capacity", "a b=1"),
        ("virtual_nodes", "0"),
        ("overload_threshold", "1"),
        ("extreme_threshold", "NaN"),
    ] {
        let error = settings.set(name, value).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    assert_eq!(*settings.strategy_options(), expected);
}

/// A worker of capacity 3 gets three times as much, and only with the strategy that reads it.
#[test]
fn named_capacity_reaches_the_plan() {
    use crate::strategy::PlanInput;
    let mut settings = Settings::new();
    settings.set("capacity", "b=3").unwrap();
    let ids = ["a", "b"].map(|id| crate::types::WorkerId::new(id).unwrap());
    let partitions: Vec<_> = (0..40)
        .map(|n| crate::types::Partition::new([format!("p{n:02}")], 0))
        .collect();
    let share = |settings: &Settings| {
        let input = PlanInput {
            workers: &ids,
            partitions: &partitions,
            previous: &[None; 40],
        };
        let owners = settings.build_strategy().assign(&input).unwrap();
        owners.into_iter().filter(|owner| *owner == 1).count()
    };
    assert_eq!(share(&settings), 30);
    settings.set("strategy", "round_robin").unwrap();
    assert_eq!(share(&settings), 20);
}

#[test]
fn window_that_is_not_set_follows_the_one_that_is() {
    let windows = |set: &[(&str, &str)]| {
        let mut settings = Settings::new();
        for (name, value) in set {
            settings.set(name, value).unwrap();
        }
        let config = settings.calculator();
        assert_eq!(config.warnings(), [], "{set:?}");
        settings.manager().validate().unwrap();
        assert_eq!(settings.manager().warnings(), [], "{set:?}");
        let seconds = |duration: Duration| duration.as_secs_f64();
        [
            seconds(config.cooldown),
            seconds(config.planned_scale_window),
            seconds(config.cold_start_window),
        ]
    };
    assert_eq!(windows(&[]), [10.0, 10.0, 30.0]);
    assert_eq!(windows(&[("cold_start_window", "1s")]), [1.0, 1.0, 1.0]);
    assert_eq!(windows(&[("planned_scale_window", "2s")]), [2.0, 2.0, 30.0]);
    assert_eq!(
        windows(&[("planned_scale_window", "60s")]),
        [10.0, 60.0, 60.0]
    );
    assert_eq!(windows(&[("cooldown", "20s")]), [20.0, 20.0, 30.0]);
    assert_eq!(windows(&[("cooldown", "40s")]), [40.0, 40.0, 40.0]);
    assert_eq!(
        windows(&[("cold_start_window", "8s"), ("cooldown", "2s")]),
        [2.0, 8.0, 8.0]
    );
    windows(&[("heartbeat_ttl", "900ms")]);
    windows(&[("heartbeat_interval", "20s")]);
    windows(&[("retry_delay_min", "1m")]);
    windows(&[("retry_delay_max", "10ms")]);
    windows(&[("worker_id_min", "5000")]);
}

#[test]
fn recovery_grace_follows_heartbeat_ttl_unless_set() {
    let mut settings = Settings::new();
    let grace = |settings: &Settings| settings.calculator().recovery_grace();
    assert_eq!(grace(&settings), Duration::from_secs(15));
    settings.set("heartbeat_ttl", "2s").unwrap();
    assert_eq!(grace(&settings), Duration::from_secs(5));
    settings.set("outage_preset", "conservative").unwrap();
    assert_eq!(grace(&settings), Duration::from_secs(20) / 3);
    settings.set("recovery_grace", "1s").unwrap();
    assert_eq!(grace(&settings), Duration::from_secs(1));
    let config = CalculatorConfig {
        heartbeat_ttl: Duration::from_secs(12),
        ..CalculatorConfig::default()
    };
    assert_eq!(config.recovery_grace(), Duration::from_secs(30));
}
