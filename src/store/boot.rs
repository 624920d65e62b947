//! A clock that is set while the machine runs: the ends of what is held are moved along.

#[cfg(target_os = "linux")]
use std::{fs, sync::OnceLock};

use super::{db::Db, error::Fault};
use crate::clock;
use jiff::Timestamp;

/// The least change of the clock that moves ends, in milliseconds.
const NOTICED: u64 = 2_000;

/// How the clock stands at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// The start of the machine since which it runs.
    boot: &'static str,
    /// By how much it is ahead of the time since then, in milliseconds.
    pub(super) ahead: i64,
}

impl Clock {
    /// As it stands now. `None` where the system does not tell the time since its start.
    pub(super) fn now() -> Option<Self> {
        let boot = boot()?;
        let since_boot = i64::try_from(clock::since_boot()?.as_millis()).ok()?;
        let ahead = Timestamp::now().as_millisecond().checked_sub(since_boot)?;
        Some(Self { boot, ahead })
    }

    /// Whether it stood about there.
    pub(super) fn is_at(&self, ahead: i64) -> bool {
        self.ahead.abs_diff(ahead) < NOTICED
    }

    /// Moves the ends that were written since the machine started by as much as the clock was set since.
    /// Older rows stay, since it is not known how the clock stood when they were written.
    pub(super) fn follow(&self, db: &Db) -> Result<(), Fault> {
        let before = self.before(db)?;
        if before.is_some_and(|before| self.is_at(before)) {
            return Ok(());
        }
        let moved = before.map_or(0, |before| self.ahead.saturating_sub(before));
        let sql = "UPDATE reservations SET ends = ends + ?1, forgotten = forgotten + ?1
                   WHERE boot = ?2";
        db.execute(sql, &[moved.into(), self.boot.into()])?;
        let sql = "INSERT INTO clock (one, boot, ahead) VALUES (1, ?1, ?2)
                   ON CONFLICT (one) DO UPDATE SET boot = excluded.boot, ahead = excluded.ahead";
        db.execute(sql, &[self.boot.into(), self.ahead.into()]).map(drop)
    }

    /// The same for a database as it is opened.
    pub(super) fn follow_at_start(&self, db: &Db) -> Result<(), Fault> {
        if self.before(db)?.is_some_and(|before| self.is_at(before)) {
            return Ok(());
        }
        db.transaction(|db| self.follow(db))
    }

    /// How far ahead it was since the machine started, when the ends last followed it.
    fn before(&self, db: &Db) -> Result<Option<i64>, Fault> {
        db.row("SELECT ahead FROM clock WHERE boot = ?1", &[self.boot.into()], |row| row.int(0))
    }
}

/// Adjusts stored ends to a clock change, before new rows use the clock.
pub(super) fn follow(db: &Db) -> Result<(), Fault> {
    Clock::now().map_or(Ok(()), |clock| clock.follow(db))
}

/// An id of this boot, stored with each row. A container with its own time namespace has its own id.
#[cfg(target_os = "linux")]
pub(super) fn boot() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let namespace = fs::read_link("/proc/self/ns/time").unwrap_or_default();
        Some(format!("{} {}", id.trim(), namespace.display()))
    };
    BOOT.get_or_init(read).as_deref()
}

/// Not told by other systems.
#[cfg(not(target_os = "linux"))]
pub(super) fn boot() -> Option<&'static str> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema::{MIGRATIONS, migrate};

    const HERE: &str = "here";

    const DAY: i64 = 24 * 60 * 60 * 1000;

    /// The ends of what was written since this start, and of all else.
    fn ends(db: &Db) -> [Vec<i64>; 2] {
        let ends = |of: &str| {
            let sql = format!("SELECT ends FROM reservations WHERE {of} AND forgotten = ends + 7");
            db.rows(&sql, &[], |row| row.int(0)).unwrap()
        };
        ["boot = 'here'", "boot IS NOT 'here'"].map(ends)
    }

    #[test]
    fn what_is_held_since_the_start_of_the_machine_follows_its_clock() {
        let db = Db::in_memory();
        migrate(&db, MIGRATIONS).unwrap();
        let rows = "
            INSERT INTO reservations (wallet, job, client, client_name, state, ends, forgotten, boot)
            VALUES
                ('w', 'here', 1, 'ci', 'reserved', 100, 107, 'here'),
                ('w', 'before', 1, 'ci', 'reserved', 100, 107, 'before'),
                ('w', 'unknown', 1, 'ci', 'reserved', 100, 107, NULL),
                ('w', 'here', 1, 'ci', 'pending', 100, 107, 'here'),
                ('w', 'before', 1, 'ci', 'pending', 100, 107, 'before');";
        db.run(rows).unwrap();
        let follow = |boot, ahead| {
            Clock { boot, ahead }.follow(&db).unwrap();
            ends(&db)
        };
        let unmoved = [vec![100; 2], vec![100; 3]];
        // Set for the first time, not at all, by very little, two days ahead, and back.
        assert_eq!(follow(HERE, 5_000), unmoved);
        assert_eq!(follow(HERE, 5_000), unmoved);
        assert_eq!(follow(HERE, 6_999), unmoved);
        let moved = [vec![100 + 2 * DAY; 2], vec![100; 3]];
        assert_eq!(follow(HERE, 5_000 + 2 * DAY), moved);
        assert_eq!(follow(HERE, 5_000), unmoved);
        // After a start of the machine nothing is known of how the clock was.
        assert_eq!(follow("later", 9 * DAY), unmoved);
        assert_eq!(follow("later", 0), unmoved);
    }
}
