//! Threads that share the work of one caller.

use std::sync::Arc;

use rayon::prelude::*;

/// A number of threads; one runs everything on the caller's own.
#[derive(Debug, Clone, Default)]
pub struct Team {
    pool: Option<Arc<rayon::ThreadPool>>,
}

impl Team {
    /// A team of `threads`; 0 takes as many as the processor has.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn new(threads: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { available } else { threads };
        if threads == 1 {
            return Ok(Self::default());
        }
        let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = builder.thread_name(|i| format!("update-{i}")).build()?;
        Ok(Self {
            pool: Some(Arc::new(pool)),
        })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.as_ref().map_or(1, |pool| pool.current_num_threads())
    }

    /// Runs `work` on a thread of the team, so that [`Team::each`] inside it need not wake another one first.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            None => work(),
            Some(pool) => pool.install(work),
        }
    }

    /// Runs both, at the same time where there are threads.
    pub fn both<A: Send, B: Send>(
        &self,
        a: impl FnOnce() -> A + Send,
        b: impl FnOnce() -> B + Send,
    ) -> (A, B) {
        match &self.pool {
            None => (a(), b()),
            Some(pool) => pool.install(|| rayon::join(a, b)),
        }
    }

    /// Calls `work` for every item; which thread takes which is open, and must not matter.
    pub fn each<T: Send>(&self, items: Vec<T>, work: impl Fn(T) + Sync + Send) {
        match &self.pool {
            None => items.into_iter().for_each(work),
            Some(pool) if items.len() > 1 => {
                pool.install(|| items.into_par_iter().with_max_len(1).for_each(work));
            }
            Some(_) => items.into_iter().for_each(work),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once_by_any_team() {
        for threads in [1, 2, 3] {
            let team = Team::new(threads).unwrap();
            assert_eq!(team.threads(), threads);
            let mut counts = vec![0u32; 100];
            let items: Vec<(usize, &mut u32)> = counts.iter_mut().enumerate().collect();
            team.install(|| team.each(items, |(i, count)| *count += i as u32 + 1));
            assert!(counts.iter().enumerate().all(|(i, count)| *count == i as u32 + 1));
        }
    }
}
