//! What is recorded and when: all the time, or when something goes wrong. A thread of ordinary or lower priority that
//! looks 50 times a second; nobody waits for it, and whatever the disk does is its own concern.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mfpo_policy::spec::RobotSpec;
use mfpo_ros::thread;

use super::bundles::Bundles;
use super::file::{CannotRecord, RecordingFile};
use super::folder::Recordings;
use super::health::{Health, SharedHealth};
use super::history::{Entry, History};
use super::ring::{Slot, TickStream};
use super::tick::{PROBING, STOPPING, fallback_name};
use super::{Channel, Facts, Mode, Settings, TickTap, tick_ring};
use crate::time::MonoTime;
use crate::weights::PolicyIdentity;

/// How often the recorder looks.
const LOOK: Duration = Duration::from_millis(20);
/// What was recorded is handed to the system this often, ns: more than this SIGKILL cannot take.
const FLUSH_EVERY: u64 = 1_000_000_000;
/// After the disk has refused something it is asked again this much later, ns.
const TRY_AGAIN: u64 = 10_000_000_000;
/// The safety filter is worth a recording when it alters commands for so long, s.
const BURST: f64 = 0.5;
/// The thread yields to the control loop by this much (nice).
const NICE: libc::c_int = 5;

/// What a call for the recording so far is answered with: its file.
pub type Saved = Result<PathBuf, String>;

/// What the recorder is told.
pub enum Note {
    /// The ticks of a robot will come from here.
    Robot(Arc<RobotSpec>, TickStream),
    /// This policy may act from now on.
    Policy(Arc<PolicyIdentity>, Arc<[u8]>),
    /// Something was published.
    Message(Channel, i64, Vec<u8>),
    /// The parameters have changed.
    Parameters(std::collections::BTreeMap<String, String>),
    /// Something has gone wrong.
    Fault(String),
    /// What is there is to be saved.
    Save(SyncSender<Saved>),
    /// The node ends.
    End(String),
}

/// Where notes for the recorder go; none of them waits.
#[derive(Debug, Clone)]
pub struct Recording {
    notes: Sender<Note>,
    health: SharedHealth,
}

impl Recording {
    /// A robot is about to be commanded; its ticks go into what is returned.
    pub fn robot(&self, spec: &Arc<RobotSpec>) -> TickTap {
        let (tap, stream) = tick_ring(spec);
        self.note(Note::Robot(Arc::clone(spec), stream));
        tap
    }

    /// Saves what is there; the answer comes when its file is begun.
    pub fn save(&self) -> Receiver<Saved> {
        let (answer, answered) = sync_channel(1);
        self.note(Note::Save(answer));
        answered
    }

    /// Tells the recorder; one that has ended hears nothing.
    pub fn note(&self, note: Note) {
        let _ = self.notes.send(note);
    }

    /// How the recorder got on until it looked last.
    pub fn health(&self) -> Health {
        self.health.get()
    }
}

struct Robot {
    spec: Arc<RobotSpec>,
    ticks: TickStream,
}

struct Open {
    file: RecordingFile,
    began: MonoTime,
    flushed: MonoTime,
    /// A recording of a fault ends then.
    until: Option<MonoTime>,
    /// What was told last of why it goes on.
    why: String,
}

/// The recorder, which [`Recorder::start`] gives a thread.
pub struct Recorder {
    settings: Settings,
    facts: Facts,
    recordings: Recordings,
    notes: Receiver<Note>,
    /// The one that is commanded, after those whose last ticks have not been read.
    robots: VecDeque<Robot>,
    bundles: Bundles,
    history: History,
    open: Option<Open>,
    /// The fallback's code of the tick before.
    fallback: u8,
    interventions: Interventions,
    /// The disk has refused something; it is asked again then.
    retry_at: Option<MonoTime>,
    /// A fault that has not reached the disk yet, and until when it is recorded.
    unwritten: Option<(String, MonoTime)>,
    end: Option<String>,
    /// Who has asked to save, answered when every tick from before that has been read.
    asked: Vec<SyncSender<Saved>>,
    health: Health,
    shared: SharedHealth,
    /// From monotonic to system time, ns.
    offset: u64,
}

impl Recorder {
    /// A recorder that has nothing yet, and where its notes go.
    pub fn new(settings: Settings, facts: Facts) -> (Recording, Self) {
        let (sender, notes) = channel();
        let shared = SharedHealth::default();
        let recorder = Self {
            recordings: Recordings::new(settings.folder.clone(), &facts.node, settings.most_bytes),
            history: History::new(settings.before),
            settings,
            facts,
            notes,
            robots: VecDeque::new(),
            bundles: Bundles::default(),
            open: None,
            fallback: 0,
            interventions: Interventions::default(),
            retry_at: None,
            unwritten: None,
            end: None,
            asked: Vec::new(),
            health: Health::default(),
            shared: shared.clone(),
            offset: 0,
        };
        let recording = Recording {
            notes: sender,
            health: shared,
        };
        (recording, recorder)
    }

    /// Starts recording on a thread, which ends after [`Note::End`].
    ///
    /// # Errors
    /// When nothing can be written in the folder, now, and not only when there is something to lose, or there is no thread
    /// to be had.
    pub fn start(settings: Settings, facts: Facts) -> Result<(Recording, JoinHandle<()>), CannotRecord> {
        let (recording, mut recorder) = Self::new(settings, facts);
        let path = recorder.settings.folder.clone();
        let checked = recorder.recordings.check();
        checked.map_err(|reason| CannotRecord::Folder { path, reason })?;
        let thread = thread::spawn("recorder", move || {
            // SAFETY: setpriority takes numbers; on Linux, with who = 0, it concerns the calling thread only. A failure
            // leaves the priority as it is.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
            while recorder.end.is_none() {
                std::thread::sleep(LOOK);
                recorder.look(MonoTime::now(), system_now());
            }
        });
        Ok((recording, thread.map_err(CannotRecord::Thread)?))
    }

    /// Takes over what has come since the last time; `system` is the system's time at `now`, ns since the Unix epoch.
    pub fn look(&mut self, now: MonoTime, system: u64) {
        self.offset = system.wrapping_sub(now.nanos());
        // A policy is told of before it acts: the notes that are read now hold that of each tick that waits.
        let waiting = self.waiting();
        let asked = std::mem::take(&mut self.asked);
        self.take_notes(now);
        self.take_ticks(waiting, now);
        self.answer(asked, now);
        match self.end.clone() {
            None => {
                self.give_up_robot();
                self.tend(now);
            }
            Some(why) => self.conclude(&why, now),
        }
        self.tell_health();
    }

    fn tell_health(&mut self) {
        let file = self.open.as_ref().map(|open| &open.file);
        self.health.file = file.map(|file| file.path().to_owned());
        self.health.file_bytes = file.map_or(0, RecordingFile::size);
        self.health.kept = self.history.ticks() as u64;
        self.shared.set(self.health.clone());
    }

    /// Everything that the node did until its end.
    fn conclude(&mut self, why: &str, now: MonoTime) {
        self.take_ticks(self.waiting(), now);
        let asked = std::mem::take(&mut self.asked);
        self.answer(asked, now);
        while self.robots.len() > 1 && self.robots.front().is_some_and(|robot| robot.ticks.has_ended()) {
            self.give_up_robot();
            self.take_ticks(self.waiting(), now);
        }
        // There is no later time to try again.
        self.retry_at = None;
        self.fault(why, now);
        self.finish();
    }

    fn waiting(&self) -> usize {
        self.robots.front().map_or(0, |robot| robot.ticks.waiting())
    }

    /// What follows a robot that the loop has given up is another recording.
    fn give_up_robot(&mut self) {
        if self.robots.front().is_some_and(|robot| robot.ticks.has_ended()) {
            self.finish();
            self.history.clear();
            self.unwritten = None;
            self.robots.pop_front();
        }
    }

    fn take_notes(&mut self, now: MonoTime) {
        while let Ok(note) = self.notes.try_recv() {
            match note {
                Note::Robot(spec, ticks) => self.robots.push_back(Robot { spec, ticks }),
                Note::Policy(identity, bytes) => {
                    let history = &self.history;
                    self.bundles.keep(identity, bytes, |digest| history.names(digest));
                }
                Note::Message(channel, time, bytes) => {
                    let time = time.unsigned_abs();
                    self.keep(
                        Entry {
                            channel,
                            at: now,
                            time,
                            stamp: time,
                            bytes,
                            policies: [None, None],
                        },
                        now,
                    );
                }
                Note::Parameters(parameters) => self.facts.parameters = parameters,
                Note::Fault(why) => self.fault(&why, now),
                Note::Save(answer) => self.asked.push(answer),
                Note::End(why) => self.end = Some(why),
            }
        }
    }

    fn take_ticks(&mut self, waiting: usize, now: MonoTime) {
        let offset = self.offset;
        for _ in 0..waiting {
            let Some(robot) = self.robots.front_mut() else {
                return;
            };
            let Some(read) = robot.ticks.read(|slot| Read::of(slot, offset)) else {
                break;
            };
            match read {
                Ok(read) => self.take_tick(read, now),
                Err(error) => self.failed(&error, now),
            }
        }
        let Some(robot) = self.robots.front() else { return };
        let lost = robot.ticks.take_lost();
        if lost > 0 {
            self.health.dropped += lost;
            self.health.dropped_at = Some(now);
            tracing::warn!("the recorder fell behind: {lost} ticks are missing from the recording");
        }
    }

    fn take_tick(&mut self, read: Read, now: MonoTime) {
        let before = std::mem::replace(&mut self.fallback, read.fallback);
        self.keep(read.entry, now);
        let period = self
            .robots
            .front()
            .map_or(1.0, |robot| robot.spec.control_period());
        let is_burst = self.interventions.note(read.is_altered, BURST / period);
        let is_fault = ![0, PROBING, STOPPING].contains(&read.fallback);
        if is_fault && read.fallback != before {
            self.fault(
                &format!("the fallback commands: {}", fallback_name(read.fallback)),
                now,
            );
        } else if read.fallback == 0 && read.missed > 0 {
            self.fault("a tick was missed", now);
        } else if is_burst {
            self.fault("the safety filter alters one command after the other", now);
        }
    }

    /// Writes an entry, or keeps it for the case that something goes wrong.
    fn keep(&mut self, entry: Entry, now: MonoTime) {
        if self.open.is_none() {
            let is_tick = entry.channel == Channel::Tick;
            self.history.push(entry);
            if is_tick && self.settings.mode == Mode::Continuous {
                self.begin("continuous", now);
            }
            return;
        }
        self.write(entry, now);
    }

    fn write(&mut self, entry: Entry, now: MonoTime) {
        let Some(open) = &mut self.open else { return };
        match open.file.write(&entry, &mut self.bundles) {
            Ok(()) => self.health.written += u64::from(entry.channel == Channel::Tick),
            Err(error) => {
                self.failed(&error, now);
                self.history.push(entry);
            }
        }
    }

    /// Something has gone wrong: what was before it is kept, and what follows for a while.
    fn fault(&mut self, why: &str, now: MonoTime) {
        if self.settings.mode == Mode::Continuous {
            return;
        }
        self.begin(why, now);
        if let Some(open) = &mut self.open {
            open.until = Some(now.plus(self.settings.after));
            if open.why != why {
                why.clone_into(&mut open.why);
                tracing::info!("the recording goes on ({why})");
            }
        } else if self.history.ticks() > 0 {
            self.keep_for_later(why.to_owned(), now.plus(self.settings.after));
        }
    }

    /// The disk takes no file now: nothing of a fault is dropped until it does.
    fn keep_for_later(&mut self, why: String, until: MonoTime) {
        let why = self.unwritten.take().map_or(why, |(first, _)| first);
        self.unwritten = Some((why, until));
        self.history.hold(true);
    }

    /// Begins a file with what is kept, where there are ticks and none is open.
    fn begin(&mut self, why: &str, now: MonoTime) {
        let is_too_early = self.retry_at.is_some_and(|at| now < at);
        if self.open.is_some() || self.history.ticks() == 0 || is_too_early {
            return;
        }
        match self.create(why) {
            Ok(file) => {
                tracing::info!("recording to {} ({why})", file.path().display());
                self.retry_at = None;
                self.health.failure = None;
                self.history.hold(false);
                self.open = Some(Open {
                    file,
                    began: now,
                    flushed: now,
                    until: self.unwritten.take().map(|(_, until)| until),
                    why: why.to_owned(),
                });
                while self.open.is_some() {
                    let Some(entry) = self.history.pop() else { break };
                    self.write(entry, now);
                }
            }
            Err(error) => self.failed(&error, now),
        }
    }

    fn create(&self, why: &str) -> Result<RecordingFile, CannotRecord> {
        let io = |source| CannotRecord::Io {
            path: self.settings.folder.clone(),
            source,
        };
        let Some(robot) = self.robots.front() else {
            return Err(io(std::io::ErrorKind::NotFound.into()));
        };
        let path = self.recordings.next().map_err(io)?;
        RecordingFile::create(&path, &self.facts, &robot.spec, why)
    }

    fn answer(&mut self, asked: Vec<SyncSender<Saved>>, now: MonoTime) {
        for answer in asked {
            // Whoever asked may have gone.
            let _ = answer.try_send(self.save(now));
        }
    }

    /// Saves what is there.
    fn save(&mut self, now: MonoTime) -> Saved {
        let kept = self.history.ticks();
        let open = self.open.as_ref().map(|open| open.file.path().to_owned());
        match (self.settings.mode, open) {
            (Mode::Continuous, Some(path)) => {
                self.finish();
                Ok(path)
            }
            (Mode::BeforeFault, Some(path)) => {
                self.fault("asked for", now);
                Ok(path)
            }
            (_, None) if kept == 0 => Err("nothing has been commanded since the last recording".into()),
            (_, None) => {
                self.begin("asked for", now);
                let Some(open) = &mut self.open else {
                    return Err(format!(
                        "the folder {} takes no file",
                        self.settings.folder.display()
                    ));
                };
                if self.settings.mode == Mode::BeforeFault {
                    open.until = Some(now.plus(self.settings.after));
                }
                Ok(open.file.path().to_owned())
            }
        }
    }

    /// Hands to the system what it has to have, and ends a file that is long or large enough.
    fn tend(&mut self, now: MonoTime) {
        if let (None, Some((why, _))) = (&self.open, &self.unwritten) {
            self.begin(&why.clone(), now);
        }
        let Some(open) = &mut self.open else { return };
        if now.since(open.flushed) >= FLUSH_EVERY {
            open.flushed = now;
            if let Err(error) = open.file.flush() {
                return self.failed(&error, now);
            }
        }
        let is_old = now.since(open.began) >= self.settings.file_time;
        let is_over = open.until.is_some_and(|until| now >= until);
        if is_old || is_over || open.file.size() >= self.recordings.file_bytes() {
            self.finish();
        }
    }

    /// Ends the file that is open.
    fn finish(&mut self) {
        let Some(open) = self.open.take() else { return };
        let (path, ticks, is_fault) = (
            open.file.path().to_owned(),
            open.file.ticks(),
            open.until.is_some(),
        );
        match open.file.finish() {
            Ok(()) if is_fault => tracing::info!("recorded {ticks} ticks to {}", path.display()),
            Ok(()) => tracing::debug!("recorded {ticks} ticks to {}", path.display()),
            Err(error) => tracing::warn!("a recording was not finished: {error}"),
        }
    }

    /// The disk has refused something: the last seconds stay in memory until it is asked again.
    fn failed(&mut self, error: &CannotRecord, now: MonoTime) {
        if let Some(open) = self.open.take() {
            if open.file.size() == 0 {
                // Nothing of it has reached the disk, and nothing will.
                let _ = std::fs::remove_file(open.file.path());
            }
            if let Some(until) = open.until {
                self.keep_for_later(open.why, until);
            }
        }
        self.retry_at = Some(now.plus(TRY_AGAIN));
        self.health.failures += 1;
        self.health.failure = Some(error.to_string());
        tracing::warn!("recording stops for {} s: {error}", TRY_AGAIN / 1_000_000_000);
    }
}

/// Commands that the safety filter altered beyond those that it did not.
#[derive(Debug, Default)]
struct Interventions {
    level: u32,
    is_told: bool,
}

impl Interventions {
    /// Takes a command; true once when there are `most` of them, and again after it has been quiet.
    fn note(&mut self, is_altered: bool, most: f64) -> bool {
        let most = most.max(5.0) as u32;
        self.level = if is_altered {
            most.min(self.level + 1)
        } else {
            self.level.saturating_sub(1)
        };
        self.is_told &= self.level > 0;
        let is_news = self.level == most && !self.is_told;
        self.is_told |= is_news;
        is_news
    }
}

/// What the recorder takes from a slot.
struct Read {
    entry: Entry,
    fallback: u8,
    missed: u32,
    /// By the safety filter.
    is_altered: bool,
}

impl Read {
    fn of(slot: &Slot, offset: u64) -> Result<Self, CannotRecord> {
        let tick = slot.message();
        Ok(Self {
            entry: Entry {
                channel: Channel::Tick,
                at: slot.handed_over(),
                time: slot.handed_over().nanos().wrapping_add(offset),
                stamp: tick.stamp.nanoseconds().unsigned_abs(),
                bytes: tick.encode()?,
                policies: slot.policies().map(|policy| policy.cloned()),
            },
            fallback: tick.fallback,
            missed: tick.missed,
            is_altered: tick.rules.iter().any(|rule| *rule > 0),
        })
    }
}

/// System time, ns since the Unix epoch.
fn system_now() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_interventions_is_told_once_until_it_has_been_quiet() {
        let mut interventions = Interventions::default();
        let mut told = |altered: bool, count: usize| {
            let notes = (0..count).map(|_| interventions.note(altered, 25.0));
            notes.filter(|is_news| *is_news).count()
        };
        assert_eq!((told(true, 24), told(true, 1), told(true, 500)), (0, 1, 0));
        assert_eq!(
            (told(false, 10), told(true, 100)),
            (0, 0),
            "it has not been quiet"
        );
        assert_eq!((told(false, 25), told(true, 100)), (0, 1));
    }
}
