use super::*;
use crate::store::memory::MemoryStore;
use crate::time::clock::ManualClock;
use crate::types::Time;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("assignment")
    }

    fn cache(&self) -> Arc<CacheFile> {
        let config = ManagerConfig {
            cache_file: Some(self.path()),
            ..ManagerConfig::default()
        };
        CacheFile::of(&config, &MemoryStore::new()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }
}

fn held() -> Held {
    Held {
        version: 7,
        term: 2,
        lifecycle: "planned_scale".into(),
        partitions: vec![Partition::new(["tool001", "chamber1"], 100)].into(),
    }
}

fn save(cache: &CacheFile) -> CacheAnswer {
    let order = CacheOrder::Save {
        worker: WorkerId::new("worker-3").unwrap(),
        held: held(),
        seen: Time::ZERO,
    };
    cache.perform(order, &ManualClock::new())
}

fn load(cache: &CacheFile) -> Option<Recalled> {
    match cache.perform(CacheOrder::Load, &ManualClock::new()) {
        CacheAnswer::Loaded(recalled) => recalled,
        other => panic!("{other:?}"),
    }
}

fn refusal(path: &Path) -> String {
    let read = read(path).and_then(|bytes| decode(bytes.expect("a file")));
    read.unwrap_err().to_string()
}

#[test]
fn saved_assignment_is_loaded_and_readable_by_owner_only() {
    let folder = Folder::new();
    let cache = folder.cache();
    assert_eq!(load(&cache), None, "no file yet");
    for _ in 0..2 {
        assert_eq!(save(&cache), CacheAnswer::Done);
    }
    let recalled = load(&cache).unwrap();
    assert_eq!(recalled.worker.as_str(), "worker-3");
    assert_eq!(recalled.held, held());
    assert!(recalled.age < Duration::from_secs(60));
    assert_eq!(folder.names(), ["assignment"], "no temporary file remains");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(folder.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    for _ in 0..2 {
        let erased = cache.perform(CacheOrder::Erase, &ManualClock::new());
        assert_eq!(erased, CacheAnswer::Done);
    }
    assert_eq!(load(&cache), None);
    assert_eq!(folder.names().len(), 0);
}

#[test]
fn queued_save_keeps_age_of_its_assignment() {
    let folder = Folder::new();
    let cache = folder.cache();
    let clock = ManualClock::new();
    clock.advance(Duration::from_secs(600));
    let order = CacheOrder::Save {
        worker: WorkerId::new("worker-3").unwrap(),
        held: held(),
        seen: Time::ZERO,
    };
    assert_eq!(cache.perform(order, &clock), CacheAnswer::Done);
    assert!(load(&cache).unwrap().age >= Duration::from_secs(600));
}

#[test]
fn truncated_or_corrupted_file_is_rejected() {
    let folder = Folder::new();
    let cache = folder.cache();
    save(&cache);
    let whole = fs::read(folder.path()).unwrap();
    for length in 0..whole.len() {
        fs::write(folder.path(), &whole[..length]).unwrap();
        assert_eq!(load(&cache), None, "cut to {length}");
    }
    for place in 0..whole.len() {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        fs::write(folder.path(), &changed).unwrap();
        assert_eq!(load(&cache), None, "changed at {place}");
    }
    fs::write(folder.path(), [whole.clone(), b"x".to_vec()].concat()).unwrap();
    assert_eq!(load(&cache), None, "longer");
    fs::write(folder.path(), &whole).unwrap();
    assert!(load(&cache).is_some());
}

#[test]
fn random_bytes_and_valid_checksums_over_garbage_are_rejected() {
    let folder = Folder::new();
    let cache = folder.cache();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..2_000 {
        let length = random.usize(..300);
        let mut bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        if random.bool() {
            bytes.retain(|&byte| byte != b'\n');
            let sum = format!("\n{:016x}\n", xxh3_64(&bytes));
            bytes.extend_from_slice(sum.as_bytes());
        }
        fs::write(folder.path(), &bytes).unwrap();
        assert_eq!(load(&cache), None, "{bytes:?}");
    }
    let summed = |text: &str| format!("{text}\n{:016x}\n", xxh3_64(text.as_bytes()));
    let object = |format: u32, id: &str, version: i64| {
        format!(
            r#"{{"format":{format},"fleet":"f","worker":"{id}","seen_ms":1,"term":1,"version":{version},"lifecycle":"x","partitions":[]}}"#
        )
    };
    for (text, word) in [
        (object(2, "worker-1", 1), "format"),
        (object(1, "a b", 1), "id"),
        (object(1, "worker-1", -1), "negative"),
        ("{}".into(), "malformed"),
    ] {
        fs::write(folder.path(), summed(&text)).unwrap();
        assert!(refusal(&folder.path()).contains(word), "{text}");
    }
}

#[test]
fn oversized_file_and_directory_are_rejected_by_name() {
    let folder = Folder::new();
    let huge = File::create(folder.path()).unwrap();
    huge.set_len(BYTES_MAX + 1).unwrap();
    assert!(refusal(&folder.path()).contains("more than"));
    fs::remove_file(folder.path()).unwrap();
    fs::create_dir(folder.path()).unwrap();
    let cache = folder.cache();
    assert!(read(&folder.path()).is_err());
    assert_eq!(load(&cache), None);
    assert_eq!(save(&cache), CacheAnswer::Failed);
    assert_eq!(folder.names(), ["assignment"], "no temporary file remains");
}

#[cfg(unix)]
#[test]
fn symlink_is_never_followed_and_pipe_never_blocks() {
    let folder = Folder::new();
    let cache = folder.cache();
    save(&cache);
    let target = folder.0.path().join("elsewhere");
    fs::rename(folder.path(), &target).unwrap();
    let before = fs::read(&target).unwrap();
    std::os::unix::fs::symlink(&target, folder.path()).unwrap();
    assert!(refusal(&folder.path()).contains("cannot open"));
    assert_eq!(load(&cache), None);
    // Saving replaces the link by a file; the target of the link is unchanged.
    fs::write(folder.0.path().join("assignment.new"), b"of a crash").unwrap();
    assert_eq!(save(&cache), CacheAnswer::Done);
    assert!(fs::symlink_metadata(folder.path()).unwrap().is_file());
    assert_eq!(fs::read(&target).unwrap(), before);
    assert!(load(&cache).is_some());

    fs::remove_file(folder.path()).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(folder.path())
        .status();
    assert!(made.unwrap().success());
    assert!(refusal(&folder.path()).contains("regular"));
}

#[cfg(unix)]
#[test]
fn unreadable_file_and_missing_directory_are_reported_without_harm() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let cache = folder.cache();
    save(&cache);
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o000)).unwrap();
    // SAFETY: takes and changes nothing.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !is_root {
        assert!(refusal(&folder.path()).contains("cannot open"));
        assert_eq!(load(&cache), None);
    }
    let config = ManagerConfig {
        cache_file: Some(folder.0.path().join("nowhere/assignment")),
        ..ManagerConfig::default()
    };
    let cache = CacheFile::of(&config, &MemoryStore::new()).unwrap();
    assert_eq!(load(&cache), None);
    assert_eq!(save(&cache), CacheAnswer::Failed);
    assert_eq!(
        cache.perform(CacheOrder::Erase, &ManualClock::new()),
        CacheAnswer::Done
    );
}

#[cfg(unix)]
#[test]
fn cache_file_that_other_users_may_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let cache = folder.cache();
    assert!(matches!(save(&cache), CacheAnswer::Done));
    assert!(load(&cache).is_some());
    for (mode, is_refused) in [(0o600, false), (0o644, false), (0o620, true), (0o602, true)] {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(load(&cache).is_none(), is_refused, "{mode:o}");
        if is_refused {
            let expected = format!("other users may write it (mode {mode:03o})");
            assert!(refusal(&folder.path()).contains(&expected));
        }
    }
}

#[cfg(unix)]
#[test]
fn cache_file_of_another_user_is_refused() {
    let folder = Folder::new();
    assert!(matches!(save(&folder.cache()), CacheAnswer::Done));
    // Only root can change the owner of a file; other users test with a file of root.
    let foreign = match std::os::unix::fs::chown(folder.path(), Some(12_345), None) {
        Ok(()) => folder.path(),
        Err(_) => PathBuf::from("/etc/passwd"),
    };
    let error = read(&foreign).unwrap_err().to_string();
    assert!(error.contains("it belongs to user "), "{error}");
}
