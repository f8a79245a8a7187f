//! Bundles are published one after the other, and every record that comes is looked at.

use std::time::Duration;

use anyhow::{bail, ensure};
use hdrhistogram::Histogram;
use mfpo_node::metrics::latencies;
use mfpo_node::time::MonoTime;
use mfpo_ros::time;
use mfpo_tests::rig::{Account, Bundles, Lineage, Misses, Named, Node, Receiver, Said, Sampler, Sequence};

use super::{Arguments, NAMESPACE, RUN, Swapped};

/// A swap that takes longer has failed, ns.
const PATIENCE: u64 = 10_000_000_000;
/// The status, which counts missed ticks, comes twice a second; a newer one is there after this time, ns.
const NEXT_STATUS: u64 = 1_100_000_000;
/// The records of the ticks that a status counts have come so long after it, ns.
const LAST_RECORDS: u64 = 200_000_000;
/// What the swaps take beside the time between two bundles, s, for the memory that is taken beforehand.
const BESIDE: f64 = 20.0;

/// What a recording is held against.
pub struct Told {
    /// Version and digest of each bundle that was published.
    pub published: Vec<(u64, String)>,
    /// Every record that was received.
    pub received: Vec<Said>,
}

/// What is under way.
pub struct Swapping<'a> {
    arguments: &'a Arguments,
    bundles: Bundles,
    receiver: Receiver,
    sampler: Sampler,
    lineage: Lineage,
    sequence: Sequence,
    misses: Misses,
    /// When the first record of the version that acts came.
    first_record: Option<MonoTime>,
    latency: Histogram<u64>,
    told: Told,
}

impl<'a> Swapping<'a> {
    /// The node commands.
    pub fn begin(arguments: &'a Arguments, node: &Node) -> anyhow::Result<Self> {
        let bundles = Bundles::start(RUN, 2, arguments.rate);
        let mut receiver = Receiver::new(NAMESPACE)?;
        receiver.wait_until_active(1.0)?;
        let seconds = BESIDE + arguments.every * arguments.swaps as f64;
        // This thread goes before the node: whatever holds it up may hold up the node, too.
        let told = Told {
            published: Vec::with_capacity(arguments.swaps as usize),
            received: Vec::with_capacity((seconds * arguments.rate) as usize),
        };
        Ok(Self {
            sampler: Sampler::start(node.control_thread_schedstat()),
            lineage: Lineage::new(RUN, 1),
            sequence: Sequence::default(),
            misses: Misses::new(arguments.rate),
            first_record: None,
            latency: latencies(),
            told,
            arguments,
            bundles,
            receiver,
        })
    }

    /// Swaps every policy.
    pub fn run(mut self) -> anyhow::Result<(Swapped, Told)> {
        let missed_before_records = self.receiver.status.missed_ticks;
        // What the node counts from now on begins no earlier than the records.
        self.next_status()?;
        let missed_before = self.receiver.status.missed_ticks;
        for version in 2..=self.arguments.swaps + 1 {
            self.swap(version)?;
        }
        self.go_on(NEXT_STATUS)?;
        let status = self.receiver.status.clone();
        self.go_on(LAST_RECORDS)?;
        ensure!(
            status.swaps == self.arguments.swaps && status.rejections == 0,
            "the node counts {} swaps and {} rejections; expected {} and 0",
            status.swaps,
            status.rejections,
            self.arguments.swaps
        );
        let since_the_first_record = status.missed_ticks - missed_before_records;
        let swapped = Swapped {
            swaps: status.swaps,
            missed_ticks: status.missed_ticks - missed_before,
            account: self.account(status.ticks, since_the_first_record)?,
            latency: self.latency,
            records: self.told.received.len() as u64,
            blended: self.lineage.blended,
            misses: self.misses,
        };
        Ok((swapped, self.told))
    }

    /// Publishes a version, waits until it acts, and until it is time for the next one.
    fn swap(&mut self, version: u64) -> anyhow::Result<()> {
        let bundle = self.bundles.next()?;
        self.told.published.push((version, bundle.digest));
        self.lineage.published(version);
        let every = (1e9 * self.arguments.every) as u64;
        let published = MonoTime::now();
        self.receiver.offer(RUN, version, bundle.bytes)?;
        let mut is_active = false;
        while !is_active || MonoTime::now().since(published) < every {
            self.receive(Duration::from_millis(2))?;
            if !is_active && self.lineage.acting() == version {
                is_active = true;
                let first = self.first_record.unwrap_or(published);
                self.latency.saturating_record(first.since(published));
            }
            ensure!(
                is_active || MonoTime::now().since(published) < PATIENCE,
                "version {version} does not act; the node says: '{}', last refusal: '{}'",
                self.receiver.status.message,
                self.receiver.status.last_rejection
            );
        }
        Ok(())
    }

    /// Waits for a message at most so long, and looks at the records that have come.
    fn receive(&mut self, longest: Duration) -> anyhow::Result<()> {
        let Self {
            receiver,
            lineage,
            sequence,
            misses,
            first_record,
            told,
            ..
        } = self;
        receiver.pump(
            longest,
            |_, _| {},
            |action, now| {
                sequence.take(action.sequence, action.fallback);
                told.received.push(Said::from(action));
                if lineage.take(&Named::from(action)) {
                    *first_record = Some(now);
                }
                if let Some(miss) = misses.of(action, now) {
                    misses.count(miss);
                }
            },
        );
        self.misses.judge(MonoTime::now(), &self.sampler);
        match &self.lineage.wrong {
            Some(wrong) => bail!("{wrong}"),
            None => Ok(()),
        }
    }

    /// Receives for so many ns.
    fn go_on(&mut self, time: u64) -> anyhow::Result<()> {
        let end = MonoTime::now().plus(time);
        while MonoTime::now() < end {
            self.receive(Duration::from_millis(10))?;
        }
        Ok(())
    }

    /// Receives until another status has come.
    fn next_status(&mut self) -> anyhow::Result<()> {
        let before = time::nanoseconds(&self.receiver.status.stamp);
        let end = MonoTime::now().plus(PATIENCE);
        while time::nanoseconds(&self.receiver.status.stamp) == before {
            ensure!(
                MonoTime::now() < end,
                "no status has come for {} s; expected two a second",
                PATIENCE / 1_000_000_000
            );
            self.receive(Duration::from_millis(10))?;
        }
        Ok(())
    }

    /// The records against the ticks that the node counts, and those that it missed: none may be lost.
    fn account(&self, ticks: u64, missed: u64) -> anyhow::Result<Account> {
        let account = self.sequence.account(ticks, missed);
        ensure!(
            account.lost == 0 && self.sequence.repeated == 0,
            "of {} ticks {} have no record, and the node has missed {missed}; expected a record of each that was not \
             skipped: {} at least were lost, {} came again or too late",
            account.ticks,
            account.without_record,
            account.lost,
            self.sequence.repeated
        );
        Ok(account)
    }
}
