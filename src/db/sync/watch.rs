use std::sync::Mutex;

use futures_channel::oneshot;

/// A value that others wait for a change of.
pub(super) struct Watch<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    value: T,
    version: u64,
    waiting: Vec<oneshot::Sender<()>>,
}

impl<T: Clone + PartialEq + Default> Default for Watch<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: Clone + PartialEq> Watch<T> {
    pub(super) fn new(value: T) -> Self {
        Self { state: Mutex::new(State { value, version: 1, waiting: Vec::new() }) }
    }

    /// The value and its version, from 1.
    pub(super) fn get(&self) -> (T, u64) {
        let state = self.state.lock().expect("no panic while held");
        (state.value.clone(), state.version)
    }

    /// Sets the value; the same one again is no change.
    pub(super) fn set(&self, value: T) {
        if self.state.lock().expect("no panic while held").value != value {
            self.update(|old| *old = value);
        }
    }

    /// Changes the value, and wakes who waits even when it stays the same.
    pub(super) fn update(&self, change: impl FnOnce(&mut T)) {
        let mut state = self.state.lock().expect("no panic while held");
        change(&mut state.value);
        state.version += 1;
        for waiting in state.waiting.drain(..) {
            // Who no longer waits need not know.
            let _ = waiting.send(());
        }
    }

    /// The value and its version, once the version is past `version`.
    pub(super) async fn after(&self, version: u64) -> (T, u64) {
        loop {
            let changed = {
                let mut state = self.state.lock().expect("no panic while held");
                if state.version > version {
                    return (state.value.clone(), state.version);
                }
                let (tell, changed) = oneshot::channel();
                state.waiting.retain(|waiting| !waiting.is_canceled());
                state.waiting.push(tell);
                changed
            };
            // Either way the value is looked at again.
            let _ = changed.await;
        }
    }
}

#[cfg(all(test, native))]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn each_change_wakes_who_waits_and_the_last_value_counts() {
        let watch = Arc::new(Watch::new(1));
        assert_eq!(watch.after(0).await, (1, 1));
        let waiting = tokio::spawn({
            let watch = watch.clone();
            async move { watch.after(1).await }
        });
        tokio::task::yield_now().await;
        watch.set(1);
        assert_eq!(watch.get(), (1, 1));
        watch.set(2);
        assert_eq!(waiting.await.unwrap(), (2, 2));
        watch.update(|_| {});
        watch.set(5);
        assert_eq!(watch.after(2).await, (5, 4));
    }
}
