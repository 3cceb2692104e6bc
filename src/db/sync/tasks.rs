use std::task::Poll;

use crate::platform::Task;

/// Futures under way, of which the first to end is waited for. For few: each wake looks at all of them.
pub(in crate::db) struct Tasks<T> {
    tasks: Vec<Task<'static, T>>,
    /// Whose turn it is, so that none starves.
    first: usize,
}

impl<T> Tasks<T> {
    pub(in crate::db) fn new() -> Self {
        Self { tasks: Vec::new(), first: 0 }
    }

    pub(in crate::db) fn push(&mut self, task: Task<'static, T>) {
        self.tasks.push(task);
    }

    /// What the next one to end gives. Never ends without any.
    pub(in crate::db) async fn next(&mut self) -> T {
        std::future::poll_fn(|context| {
            for turn in 0..self.tasks.len() {
                let index = (self.first + turn) % self.tasks.len();
                if let Poll::Ready(value) = self.tasks[index].as_mut().poll(context) {
                    drop(self.tasks.swap_remove(index));
                    self.first = index;
                    return Poll::Ready(value);
                }
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(all(test, native))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gives_each_end_once_and_starves_none() {
        let mut tasks = Tasks::new();
        let (tell, told) = futures_channel::oneshot::channel();
        tasks.push(Box::pin(async move { told.await.unwrap() }));
        tasks.push(Box::pin(async { 1 }));
        assert_eq!(tasks.next().await, 1);
        tasks.push(Box::pin(async { 2 }));
        tasks.push(Box::pin(async { 3 }));
        let mut ends = [tasks.next().await, tasks.next().await];
        ends.sort_unstable();
        assert_eq!(ends, [2, 3]);
        tell.send(4).unwrap();
        // One that is always ready does not hide it.
        for _ in 0..3 {
            tasks.push(Box::pin(async { 0 }));
        }
        let ends = [tasks.next().await, tasks.next().await, tasks.next().await, tasks.next().await];
        assert!(ends.contains(&4));
    }
}
