// Waiting for a session.

/** The first status of `sync` that is `wanted`, which may be the one that it has. */
export function statusOf(sync, wanted) {
  return new Promise((resolve) => {
    const look = (status) => {
      if (!wanted(status)) return;
      forget();
      resolve(status);
    };
    const forget = sync.onStatus(look);
    look(sync.status);
  });
}

/** Both sides have what the other has. */
export const done = (status) => status.state === 'live' && status.pending === 0 && status.lastSyncedAt !== undefined;
