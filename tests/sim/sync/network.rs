//! A network between stores: whole messages in order, late, until a connection breaks, of which each end hears at once, or never.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use eddydb::base::{Error, ErrorKind, Random, Result};
use eddydb::db::{Db, SyncHub};
use eddydb::platform::Task;
use eddydb::platform::socket::{Connect, Connection};
use eddydb::sync::FILES_PLACE;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::parts::Rights;
use super::planted::{Fault, Spoiled};

/// Messages on the way in one direction before a sender waits.
const WINDOW: usize = 8;
/// More than any run needs: who sends more never comes to rest.
const MESSAGES_MAX: u64 = 200_000;

/// The places of all stores, and what lies between them. Clones are one network.
#[derive(Clone)]
pub struct Network(Arc<Mutex<Inner>>);

pub struct Inner {
    pub random: Random,
    pub places: Vec<Place>,
    /// Pairs that do not reach each other.
    pub blocked: BTreeSet<(usize, usize)>,
    /// A message takes up to this.
    pub slow_ms: u64,
    wires: Vec<Arc<Wire>>,
    messages: u64,
    /// A store has gone back to an older backup: what is sent to whom is not looked at any more.
    pub gone_back: bool,
    /// What was seen that must not be.
    pub wrong: Vec<String>,
    fault: Option<Fault>,
}

/// Where a store is, while it runs.
#[derive(Clone, Default)]
pub struct Place {
    /// Counts the lives: what belongs to an earlier one is dead.
    pub life: u64,
    pub hub: Option<(SyncHub, Db)>,
}

/// One connection.
struct Wire {
    client: usize,
    hub: usize,
    state: Mutex<WireState>,
    /// Wakes who waits at the client, and at the hub.
    wake: [Notify; 2],
}

#[derive(Default)]
struct WireState {
    /// From the client, and from the hub.
    ways: [VecDeque<(Instant, Vec<u8>)>; 2],
    closed: [bool; 2],
    /// Whether an end knows that the connection is broken.
    broken: [bool; 2],
    /// What is sent in a direction vanishes.
    swallows: [bool; 2],
}

impl Network {
    pub fn new(seed: u64, places: usize, fault: Option<Fault>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            random: Random::new(seed),
            places: vec![Place::default(); places],
            blocked: BTreeSet::new(),
            slow_ms: 20,
            wires: Vec::new(),
            messages: 0,
            gone_back: false,
            wrong: Vec::new(),
            fault,
        })))
    }

    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// How `client` reaches `hub` in the life that it has now.
    pub fn route(&self, client: usize, hub: usize, db: &Db, part: u8, rights: Arc<Rights>) -> Arc<dyn Connect> {
        let life = self.inner().places[client].life;
        Arc::new(Route { network: self.clone(), client, hub, life, db: db.clone(), part, rights })
    }

    /// Breaks a connection, if there is one; each end hears of it or not.
    pub fn cut_any(&self) {
        let mut inner = self.inner();
        inner.forget_dead();
        if inner.wires.is_empty() {
            return;
        }
        let count = inner.wires.len() as u64;
        let at = inner.random.below(count) as usize;
        let told = [!inner.random.one_in(4), !inner.random.one_in(4)];
        let wire = inner.wires[at].clone();
        super::event(|| format!("cut {} - {}, told {told:?}", wire.client, wire.hub));
        wire.cut(told);
    }

    /// Two places do not reach each other any more: what is sent on their connections vanishes.
    pub fn block(&self, one: usize, other: usize) {
        let mut inner = self.inner();
        inner.blocked.insert((one.min(other), one.max(other)));
        for wire in &inner.wires {
            if (wire.client.min(wire.hub), wire.client.max(wire.hub)) == (one.min(other), one.max(other)) {
                wire.cut([false, false]);
            }
        }
    }

    /// The process at `place` is gone: nothing of it is heard any more, and some of its peers hear that.
    pub fn kill(&self, place: usize) {
        let mut inner = self.inner();
        inner.places[place].life += 1;
        inner.places[place].hub = None;
        for wire in inner.wires.clone() {
            let hears = inner.random.one_in(2);
            if wire.client == place {
                wire.cut([true, hears]);
            } else if wire.hub == place {
                wire.cut([hears, true]);
            }
        }
        inner.forget_dead();
    }
}

impl Inner {
    fn forget_dead(&mut self) {
        self.wires.retain(|wire| {
            let state = wire.state.lock().unwrap();
            !(state.broken[0] || state.closed[0]) || !(state.broken[1] || state.closed[1])
        });
    }

    fn delay(&mut self) -> Duration {
        Duration::from_millis(self.random.below(self.slow_ms + 1))
    }
}

impl Wire {
    fn cut(&self, told: [bool; 2]) {
        let mut state = self.state.lock().unwrap();
        for end in [0, 1] {
            state.ways[end].clear();
            state.swallows[end] = true;
            state.broken[end] |= told[end];
        }
        drop(state);
        self.wake.iter().for_each(Notify::notify_waiters);
    }
}

fn unavailable(message: &str) -> Error {
    Error::new(ErrorKind::Unavailable, message)
}

struct Route {
    network: Network,
    client: usize,
    hub: usize,
    life: u64,
    db: Db,
    /// What the client asks for, and what it may read.
    part: u8,
    rights: Arc<Rights>,
}

impl Connect for Route {
    fn connect(&self) -> Task<'_, Result<Arc<dyn Connection>>> {
        Box::pin(async move {
            let delay = self.network.inner().delay();
            tokio::time::sleep(delay).await;
            let mut inner = self.network.inner();
            if inner.places[self.client].life != self.life {
                return Err(unavailable("this process is gone"));
            }
            if inner.blocked.contains(&(self.client.min(self.hub), self.client.max(self.hub))) {
                return Err(unavailable("nobody answers"));
            }
            let Some((hub, hub_db)) = inner.places[self.hub].hub.clone() else {
                return Err(unavailable("nobody is there"));
            };
            let wire = Arc::new(Wire {
                client: self.client,
                hub: self.hub,
                state: Mutex::default(),
                wake: [Notify::new(), Notify::new()],
            });
            inner.wires.push(wire.clone());
            inner.forget_dead();
            let end = |side| Arc::new(End { network: self.network.clone(), wire: wire.clone(), side });
            let served = end(1);
            tokio::spawn(async move {
                // Why it ended, the client knows best.
                let _ = hub.serve(served).await;
            });
            let fault = inner.fault;
            drop(inner);
            let spoiled: Arc<dyn Connection> = Arc::new(Spoiled::new(
                end(0),
                self.db.clone(),
                hub_db,
                self.network.clone(),
                fault,
                (self.part, self.client, self.rights.clone()),
            ));
            Ok(spoiled)
        })
    }

    fn downloads(&self) -> bool {
        true
    }

    /// Requests have no connection of their own: each finds the hub or not, and what comes may be cut, or be something else.
    fn download(&self, path: &str, token: Option<&str>, offset: u64, len: u64) -> Task<'static, Result<Vec<u8>>> {
        let (network, pair, life) = (self.network.clone(), (self.client, self.hub), self.life);
        let path = path.strip_prefix(FILES_PLACE).and_then(|path| path.strip_prefix('/')).unwrap_or("").to_owned();
        let token = token.map(str::to_owned);
        Box::pin(async move {
            let delay = network.inner().delay();
            tokio::time::sleep(delay).await;
            let (hub, end) = {
                let mut inner = network.inner();
                let (client, hub) = pair;
                let is_cut = inner.blocked.contains(&(client.min(hub), client.max(hub)));
                if is_cut || inner.places[client].life != life {
                    return Err(unavailable("nobody answers"));
                }
                let Some((hub, _)) = inner.places[hub].hub.clone() else {
                    return Err(unavailable("nobody is there"));
                };
                (hub, inner.random.below(16))
            };
            let mut bytes = hub.file(token.as_deref(), &path).await?.read(offset, len).await?.to_vec();
            let some = (offset as usize * 7 + 3) % bytes.len();
            match end {
                0 => bytes.truncate(some),
                1 => bytes[some] ^= 1,
                2 => return Err(unavailable("the request broke")),
                _ => {}
            }
            let delay = network.inner().delay();
            tokio::time::sleep(delay).await;
            Ok(bytes)
        })
    }
}

struct End {
    network: Network,
    wire: Arc<Wire>,
    /// 0 for the client, 1 for the hub.
    side: usize,
}

impl Connection for End {
    fn send(&self, message: Vec<u8>) -> Task<'_, Result<()>> {
        Box::pin(async move {
            loop {
                let mut woken = std::pin::pin!(self.wire.wake[self.side].notified());
                woken.as_mut().enable();
                {
                    let mut inner = self.network.inner();
                    let mut state = self.wire.state.lock().unwrap();
                    if state.broken[self.side] || state.closed[self.side] {
                        return Err(unavailable("the connection is broken"));
                    }
                    inner.messages += 1;
                    assert!(inner.messages < MESSAGES_MAX, "{MESSAGES_MAX} messages, and no rest");
                    if state.swallows[self.side] {
                        return Ok(());
                    }
                    if state.ways[self.side].len() < WINDOW {
                        let mut due = Instant::now() + inner.delay();
                        if let Some((last, _)) = state.ways[self.side].back() {
                            due = due.max(*last);
                        }
                        state.ways[self.side].push_back((due, message));
                        drop(state);
                        self.wire.wake[1 - self.side].notify_waiters();
                        return Ok(());
                    }
                }
                woken.await;
            }
        })
    }

    fn receive(&self) -> Task<'_, Result<Option<Vec<u8>>>> {
        Box::pin(async move {
            loop {
                let mut woken = std::pin::pin!(self.wire.wake[self.side].notified());
                woken.as_mut().enable();
                let due = {
                    let mut state = self.wire.state.lock().unwrap();
                    if state.broken[self.side] || state.closed[self.side] {
                        return Err(unavailable("the connection is broken"));
                    }
                    let due = state.ways[1 - self.side].front().map(|(due, _)| *due);
                    match due {
                        Some(due) if due <= Instant::now() => {
                            let (_, message) = state.ways[1 - self.side].pop_front().unwrap();
                            drop(state);
                            self.wire.wake[1 - self.side].notify_waiters();
                            return Ok(Some(message));
                        }
                        None if state.closed[1 - self.side] && !state.swallows[1 - self.side] => return Ok(None),
                        due => due,
                    }
                };
                match due {
                    Some(due) => drop(tokio::time::timeout_at(due, woken).await),
                    None => woken.await,
                }
            }
        })
    }

    fn close(&self) -> Task<'_, ()> {
        Box::pin(async move {
            self.wire.state.lock().unwrap().closed[self.side] = true;
            self.wire.wake.iter().for_each(Notify::notify_waiters);
        })
    }
}
