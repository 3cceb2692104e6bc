use std::task::Poll;

use crate::platform::Task;

/// Futures under way, of which the first to end is waited for. For few: each wake looks at all of them.
pub(super) struct Tasks<T> {
    tasks: Vec<Task<'static, T>>,
    /// Whose turn it is, so that none starves.
    first: usize,
}

impl<T> Tasks<T> {
    pub(super) fn new() -> Self {
        Self { tasks: Vec::new(), first: 0 }
    }

    pub(super) fn push(&mut self, task: Task<'static, T>) {
        self.tasks.push(task);
    }

    /// What the next one to end gives. Never ends without any.
    pub(super) async fn next(&mut self) -> T {
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
