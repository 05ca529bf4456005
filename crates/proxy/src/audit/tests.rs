//! The log as a whole: queue, thread, file, and the check afterwards, with every step of the disk failing in turn.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::chain::{Fault, Place, Report};
use super::disk::Disk;
use super::log::Log;
use super::read;
use super::record::Record;
use super::writer::{Audit, AuditSettings, Fsync, Health, Limits, OpenError};

fn settings(folder: &Path) -> AuditSettings {
    AuditSettings { file: folder.join("audit.ndjson"), fsync: Fsync::Never, rotate_bytes: 0, keep: 0 }
}

fn record(id: u32) -> Box<Record> {
    Box::new(Record { id: format!("D{id}"), detail: Some("a\r\nb\u{1b}[31m".into()), ..Record::default() })
}

#[test]
fn a10_a_subject_with_control_characters_stays_one_escaped_line() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Audit::open(settings(folder.path())).unwrap();
    audit.push(record(1));
    audit.stop();
    let text = std::fs::read_to_string(folder.path().join("audit.ndjson")).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(!text.contains('\u{1b}') && !text.contains('\r'));
}

#[test]
fn a_flush_waits_for_what_was_queued_before() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Audit::open(settings(folder.path())).unwrap();
    assert!(audit.flush(Duration::ZERO), "nothing to wait for");
    audit.push(record(1));
    assert!(audit.flush(Duration::from_secs(10)));
    assert!(read::find(&[folder.path().join("audit.ndjson")], "D1").unwrap().is_some());
    audit.stop();
}

fn lines(places: &[Place]) -> Vec<u64> {
    places.iter().map(|at| at.line).collect()
}

#[test]
fn a_restart_goes_on_with_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    for start in 0..3 {
        let audit = Audit::open(settings(folder.path())).unwrap();
        (0..100).for_each(|i| audit.push(record(start * 100 + i)));
        audit.stop();
    }
    let report = read::verify(&[folder.path().join("audit.ndjson")]).unwrap();
    assert_eq!(report.finding, None);
    assert_eq!((report.decisions, report.processes), (300, 3));
}

#[test]
fn a10_a_line_cut_by_a_kill_is_said_to_be_truncated_after_the_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.ndjson");
    let audit = Audit::open(settings(folder.path())).unwrap();
    (0..3).for_each(|i| audit.push(record(i)));
    audit.stop();
    let size = std::fs::metadata(&file).unwrap().len();
    OpenOptions::new().write(true).open(&file).unwrap().set_len(size - 40).unwrap();
    let cut = read::verify(std::slice::from_ref(&file)).unwrap();
    assert_eq!((&cut.finding, lines(&cut.truncated_at)), (&None, vec![4]));
    Audit::open(settings(folder.path())).unwrap().stop();
    let after = read::verify(&[file]).unwrap();
    assert_eq!((&after.finding, lines(&after.truncated_at), after.processes), (&None, vec![4], 2));
}

#[test]
fn a10_rotation_under_load_keeps_one_chain_over_all_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.ndjson");
    let audit = Audit::open(AuditSettings { rotate_bytes: 20_000, ..settings(folder.path()) }).unwrap();
    for i in 0..2_000 {
        audit.push(record(i));
        if i % 100 == 0 {
            std::thread::yield_now();
        }
        while audit.stats().written.load(Ordering::Relaxed) + 300 < u64::from(i) {
            std::thread::yield_now();
        }
    }
    audit.stop();
    let files = read::files_of(&file);
    assert!(files.len() > 2, "{files:?}");
    let report = read::verify(&files).unwrap();
    assert_eq!(report.finding, None);
    assert_eq!(report.decisions, 2_000);
}

#[test]
fn a10_a_file_renamed_by_somebody_else_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.ndjson");
    let audit = Audit::open(settings(folder.path())).unwrap();
    audit.push(record(1));
    while audit.stats().written.load(Ordering::Relaxed) < 1 {
        std::thread::yield_now();
    }
    let aside = folder.path().join("audit.ndjson.1234567890123");
    std::fs::rename(&file, &aside).unwrap();
    audit.push(record(2));
    audit.stop();
    let report = read::verify(&[aside, file]).unwrap();
    assert_eq!((report.finding, report.decisions), (None, 2));
}

/// The log is a link, so that the disk behind it can be filled and freed.
#[test]
fn a10_a_disk_that_fills_up_during_a_rotation_leaves_a_gap_and_a_whole_chain() {
    let folder = tempfile::tempdir().unwrap();
    let (link, disk) = (folder.path().join("audit.ndjson"), folder.path().join("disk"));
    let point_to = |target: &Path| {
        let new = folder.path().join("new");
        std::os::unix::fs::symlink(target, &new).unwrap();
        std::fs::rename(new, &link).unwrap();
    };
    let wait = |reached: &dyn Fn() -> bool| {
        (0..10_000).any(|_| {
            reached() || {
                std::thread::sleep(Duration::from_millis(10));
                false
            }
        })
    };
    point_to(&disk);
    let audit = Audit::open(settings(folder.path())).unwrap();
    let stats = audit.stats();
    audit.push(record(1));
    assert!(wait(&|| stats.written.load(Ordering::Relaxed) == 1));
    point_to(Path::new("/dev/full"));
    for missing in 1..=3 {
        audit.push(record(missing));
        assert!(wait(&|| stats.missing.load(Ordering::Relaxed) == u64::from(missing)));
    }
    assert_eq!(audit.health(), Health::Failing);
    point_to(&disk);
    assert!(wait(&|| audit.health() == Health::Writing));
    audit.push(record(4));
    audit.stop();
    let report = read::verify(std::slice::from_ref(&disk)).unwrap();
    assert_eq!((report.finding, report.decisions), (None, 2));
    assert!(std::fs::read_to_string(disk).unwrap().contains("\"missing\":3"));
}

#[test]
fn a10_a_second_writer_is_refused_and_breaks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.ndjson");
    let audit = Audit::open(settings(folder.path())).unwrap();
    audit.push(record(1));
    assert!(matches!(Audit::open(settings(folder.path())), Err(OpenError::InUse { .. })));
    audit.push(record(2));
    audit.stop();
    let report = read::verify(&[file]).unwrap();
    assert_eq!((report.finding, report.decisions, report.processes), (None, 2, 1));
    Audit::open(settings(folder.path())).unwrap().stop();
}

#[test]
fn a_file_missing_from_the_middle_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.ndjson");
    for start in 0..3 {
        let audit = Audit::open(settings(folder.path())).unwrap();
        audit.push(record(start));
        audit.stop();
        if start < 2 {
            std::fs::copy(&file, folder.path().join(format!("copy{start}"))).unwrap();
        }
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let without: Vec<&str> = text.lines().enumerate().filter(|(i, _)| *i != 3).map(|(_, l)| l).collect();
    std::fs::write(&file, without.join("\n") + "\n").unwrap();
    assert_eq!(read::verify(&[file]).unwrap().finding.unwrap().fault, Fault::Unlinked);
}

/// A disk of which every step can be made to fail.
#[derive(Clone, Default)]
struct Faulty(Arc<(Mutex<Faults>, Condvar)>);

#[derive(Default)]
struct Faults {
    /// Bytes that can still be written.
    room: Option<usize>,
    no_cut: bool,
    no_sync: bool,
    no_rename: bool,
    no_open: bool,
    hangs: bool,
    /// A write waits for the disk.
    hanging: bool,
}

impl Faulty {
    fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.faults());
        self.0.1.notify_all();
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.0.0.lock().unwrap()
    }

    fn wait_until(&self, is: impl Fn(&Faults) -> bool) {
        let waited = self.0.1.wait_timeout_while(self.faults(), Duration::from_secs(20), |faults| !is(faults));
        assert!(!waited.unwrap().1.timed_out());
    }

    fn allow(&self, fails: impl Fn(&Faults) -> bool) -> std::io::Result<()> {
        if fails(&self.faults()) { Err(std::io::Error::other("made to fail")) } else { Ok(()) }
    }
}

impl Disk for Faulty {
    fn open(&self, path: &Path) -> std::io::Result<File> {
        self.allow(|faults| faults.no_open)?;
        super::disk::SystemDisk.open(path)
    }

    fn write(&self, mut file: &File, bytes: &[u8]) -> std::io::Result<()> {
        self.set(|faults| faults.hanging = faults.hangs);
        self.wait_until(|faults| !faults.hangs);
        let room = self.faults().room.unwrap_or(usize::MAX).min(bytes.len());
        self.set(|faults| faults.room = faults.room.map(|left| left - room));
        std::io::Write::write_all(&mut file, &bytes[..room])?;
        if room < bytes.len() { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn cut(&self, file: &File, size: u64) -> std::io::Result<()> {
        self.allow(|faults| faults.no_cut)?;
        file.set_len(size)
    }

    fn sync(&self, _: &File) -> std::io::Result<()> {
        self.allow(|faults| faults.no_sync)
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.allow(|faults| faults.no_rename)?;
        std::fs::rename(from, to)
    }
}

fn open_log(settings: &AuditSettings, disk: &Faulty) -> Log {
    Log::open(settings.clone(), Box::new(disk.clone())).unwrap()
}

/// What the check finds in all files, which must be one whole chain with nothing unaccounted for.
fn whole(settings: &AuditSettings, decisions: u64, missing: u64) -> Report {
    let report = read::verify(&read::files_of(&settings.file)).unwrap();
    assert_eq!((&report.finding, report.decisions, report.gaps), (&None, decisions, missing));
    report
}

/// A write that stops after `room` bytes, again after a few, and then works. Whatever it left, the chain is whole.
fn check_torn(settings: &AuditSettings, room: usize, no_cut: bool) {
    let disk = Faulty::default();
    let mut log = open_log(settings, &disk);
    assert!(log.write(&[record(0)], 0).error.is_none());
    disk.set(|faults| (faults.room, faults.no_cut) = (Some(room), no_cut));
    let mut written = 1;
    for (records, more) in [(vec![record(1), record(2)], 0), (vec![record(3)], 30), (vec![record(4)], 1)] {
        disk.set(|faults| faults.room = faults.room.map(|left| left + more));
        written += log.write(&records, 0).records;
    }
    disk.set(|faults| faults.room = None);
    let last = log.write(&[record(5)], 0);
    assert!(last.error.is_none());
    written += last.records;
    drop(log);
    let report = whole(settings, written, 6 - written);
    assert!(no_cut || report.truncated_at.is_empty(), "{report:?}");
    open_log(settings, &disk).write(&[], 0);
    whole(settings, written, 6 - written);
}

#[test]
fn a10_a_failed_write_leaves_a_whole_chain_whether_or_not_it_can_be_cut_off() {
    for room in (0..1_400).step_by(9) {
        for no_cut in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            check_torn(&settings(folder.path()), room, no_cut);
        }
    }
}

#[test]
fn a10_nothing_piles_up_in_memory_while_the_file_can_neither_be_written_nor_cut() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let disk = Faulty::default();
    let mut log = open_log(&settings, &disk);
    log.write(&[], 0);
    disk.set(|faults| (faults.room, faults.no_cut) = (Some(10), true));
    for i in 0..50 {
        assert_eq!(log.write(&[record(i)], 0).records, 0);
    }
    disk.set(|faults| faults.room = None);
    assert_eq!(log.write(&[record(50)], 0).records, 1);
    assert_eq!(lines(&whole(&settings, 1, 50).truncated_at), [2]);
}

#[test]
fn a10_a_failed_sync_loses_no_record_and_breaks_no_chain() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings { fsync: Fsync::Batch, ..settings(folder.path()) };
    let disk = Faulty::default();
    let mut log = open_log(&settings, &disk);
    log.write(&[record(0)], 0);
    disk.set(|faults| faults.no_sync = true);
    for i in 1..4 {
        let wrote = log.write(&[record(i)], 0);
        assert!(wrote.records == 1 && wrote.error.is_some());
    }
    assert!(log.write(&[], 0).error.is_some(), "tried again without records");
    disk.set(|faults| faults.no_sync = false);
    assert!(log.write(&[], 0).error.is_none());
    whole(&settings, 4, 0);
}

#[test]
fn a10_a_rotation_that_meets_a_full_disk_keeps_the_chain() {
    for room in (0..700).step_by(11) {
        for no_cut in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let settings = AuditSettings { rotate_bytes: 1, ..settings(folder.path()) };
            check_torn(&settings, room, no_cut);
            assert!(read::files_of(&settings.file).len() > 1);
        }
    }
}

#[test]
fn a10_a_rename_that_fails_does_not_stop_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings { rotate_bytes: 1, ..settings(folder.path()) };
    let disk = Faulty::default();
    disk.set(|faults| faults.no_rename = true);
    let mut log = open_log(&settings, &disk);
    for i in 0..5 {
        let wrote = log.write(&[record(i)], 0);
        assert!(wrote.records == 1 && wrote.error.is_none());
    }
    assert_eq!(read::files_of(&settings.file).len(), 1);
    whole(&settings, 5, 0);
}

#[test]
fn a10_an_open_that_fails_in_a_rotation_does_not_stop_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings { rotate_bytes: 1, ..settings(folder.path()) };
    let disk = Faulty::default();
    let mut log = open_log(&settings, &disk);
    log.write(&[], 0);
    disk.set(|faults| faults.no_open = true);
    for i in 0..5 {
        let wrote = log.write(&[record(i)], 0);
        assert!(wrote.records == 1 && wrote.error.is_none());
    }
    assert!(!settings.file.exists());
    disk.set(|faults| faults.no_open = false);
    let second = Audit::open(settings.clone());
    assert!(matches!(second, Err(OpenError::InUse { .. })), "the renamed file is still being written");
    assert_eq!(log.write(&[record(5)], 0).records, 1);
    assert_eq!(read::files_of(&settings.file).len(), 2);
    whole(&settings, 6, 0);
}

#[test]
fn a10_a_file_put_in_place_that_ends_in_the_middle_of_a_line_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let mut log = open_log(&settings, &Faulty::default());
    log.write(&[record(0)], 0);
    std::fs::rename(&settings.file, folder.path().join("audit.ndjson.1234567890123")).unwrap();
    std::fs::write(&settings.file, "{\"kind\":").unwrap();
    assert_eq!(log.write(&[record(1)], 0).records, 1);
    assert_eq!(lines(&whole(&settings, 2, 0).truncated_at), [1]);
}

/// A log of one record, whose file is then left as `leave` makes it; two starts later it is still one chain.
fn check_left(leave: impl Fn(&Path, &Path)) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let disk = Faulty::default();
    open_log(&settings, &disk).write(&[record(0)], 0);
    leave(&settings.file, &folder.path().join("audit.ndjson.1234567890123"));
    for _ in 0..2 {
        assert!(open_log(&settings, &disk).write(&[], 0).error.is_none());
    }
    let report = read::verify(&read::files_of(&settings.file)).unwrap();
    assert_eq!(report.finding, None);
    report
}

#[test]
fn a10_a_kill_between_a_rotation_and_its_first_line_is_no_tampering() {
    let rotate = |file: &Path, aside: &Path| std::fs::rename(file, aside).unwrap();
    assert_eq!(check_left(rotate).decisions, 1);
    let empty = |file: &Path, aside: &Path| {
        rotate(file, aside);
        File::create(file).unwrap();
    };
    assert_eq!(check_left(empty).decisions, 1);
    let torn = |file: &Path, aside: &Path| {
        rotate(file, aside);
        std::fs::write(file, r#"{"kind":"continue","proc"#).unwrap();
    };
    assert_eq!(lines(&check_left(torn).truncated_at), [1]);
    let both_torn = |file: &Path, aside: &Path| {
        shorten(file, 20);
        torn(file, aside);
    };
    let cut = check_left(both_torn).truncated_at;
    let names: Vec<_> =
        cut.iter().map(|at| (at.file.file_name().and_then(|name| name.to_str()).unwrap(), at.line)).collect();
    assert_eq!(names, [("audit.ndjson.1234567890123", 2), ("audit.ndjson", 1)], "each line is named with its file");
}

fn shorten(file: &Path, by: u64) {
    let file = OpenOptions::new().write(true).open(file).unwrap();
    file.set_len(file.metadata().unwrap().len() - by).unwrap();
}

#[test]
fn a10_a_kill_at_any_byte_of_the_last_line_is_no_tampering() {
    assert_eq!(check_left(|file, _| shorten(file, 1)).truncated_at, [], "only the newline is missing");
    for by in 2..400 {
        assert_eq!(lines(&check_left(|file, _| shorten(file, by)).truncated_at), [2], "{by} bytes");
    }
}

#[test]
fn a10_two_starts_cut_off_one_after_the_other_are_no_tampering() {
    for by in [2, 20, 150] {
        let report = check_left(|file, _| {
            shorten(file, 50);
            let settings = settings(file.parent().unwrap());
            open_log(&settings, &Faulty::default()).write(&[], 0);
            shorten(file, by);
        });
        assert_eq!((lines(&report.truncated_at), report.processes), (vec![2, 3], 3), "{by} bytes");
    }
}

#[test]
fn a10_a_line_changed_before_a_cut_one_is_still_found() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    open_log(&settings, &Faulty::default()).write(&[record(0), record(1)], 0);
    shorten(&settings.file, 50);
    let text = std::fs::read_to_string(&settings.file).unwrap();
    std::fs::write(&settings.file, text.replace("\"id\":\"D0\"", "\"id\":\"D9\"")).unwrap();
    open_log(&settings, &Faulty::default()).write(&[], 0);
    let finding = read::verify(std::slice::from_ref(&settings.file)).unwrap().finding.unwrap();
    assert_eq!((finding.at.line, finding.fault), (2, Fault::Changed));
}

fn open_audit(settings: &AuditSettings, disk: &Faulty, limits: Limits) -> Audit {
    Audit::open_on(settings.clone(), Box::new(disk.clone()), limits, Vec::new()).unwrap()
}

/// A log that can write nothing, for the tests of those who ask it.
pub(crate) fn on_a_full_disk(folder: &Path) -> Audit {
    let disk = Faulty::default();
    disk.set(|faults| faults.room = Some(0));
    let audit = open_audit(&settings(folder), &disk, Limits::default());
    assert_eq!(audit.health(), Health::Failing);
    audit
}

#[test]
fn a10_a_full_disk_at_the_start_is_a_failing_log_and_no_failed_start() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let disk = Faulty::default();
    disk.set(|faults| faults.room = Some(30));
    let audit = open_audit(&settings, &disk, Limits::default());
    assert_eq!(audit.health(), Health::Failing);
    audit.push(record(0));
    assert!(audit.flush(Duration::from_secs(20)));
    assert_eq!(audit.stats().missing.load(Ordering::Relaxed), 1);
    disk.set(|faults| faults.room = None);
    audit.push(record(1));
    assert!(audit.flush(Duration::from_secs(20)));
    assert_eq!(audit.health(), Health::Writing);
    audit.stop();
    assert_eq!(whole(&settings, 1, 1).processes, 1);
}

/// An audit whose disk hangs in the write of its first record.
fn hanging(settings: &AuditSettings, disk: &Faulty, limits: Limits) -> Audit {
    let audit = open_audit(settings, disk, limits);
    disk.set(|faults| faults.hangs = true);
    audit.push(record(0));
    disk.wait_until(|faults| faults.hanging);
    audit
}

fn wait_for(audit: &Audit, health: Health) {
    let reached = (0..2_000).any(|_| {
        audit.health() == health || {
            std::thread::sleep(Duration::from_millis(10));
            false
        }
    });
    assert!(reached, "not {health:?}");
}

#[test]
fn a10_a_disk_that_hangs_is_failing_and_holds_up_neither_flush_nor_stop() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let disk = Faulty::default();
    let short = Duration::from_millis(20);
    let limits = Limits { hangs_after: Duration::ZERO, stop: short, ..Limits::default() };
    let audit = hanging(&settings, &disk, limits);
    wait_for(&audit, Health::Failing);
    assert!(!audit.flush(short));
    audit.stop();
    disk.set(|faults| faults.hangs = false);
    assert!(audit.flush(Duration::from_secs(20)));
    wait_for(&audit, Health::Writing);
    audit.stop();
    whole(&settings, 1, 0);
}

#[test]
fn a10_the_queue_is_bounded_by_bytes_with_what_is_being_written() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let disk = Faulty::default();
    let one = record(0).memory();
    let big = || Record { detail: Some("x".repeat(100_000)), ..*record(1) };
    assert!(big().memory() > 100_000);
    let limits = Limits { bytes: 3 * one, ..Limits::default() };
    let audit = hanging(&settings, &disk, limits);
    audit.push(big());
    assert_eq!(audit.health(), Health::Failing);
    (0..5).for_each(|_| audit.push(record(0)));
    assert_eq!(audit.stats().missing.load(Ordering::Relaxed), 1 + 3);
    disk.set(|faults| faults.hangs = false);
    assert!(audit.flush(Duration::from_secs(20)));
    (0..3).for_each(|_| audit.push(record(0)));
    audit.stop();
    whole(&settings, 6, 4);
}
