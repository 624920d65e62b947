//! Whether other users of the machine can reach a file, by its owner and permission bits.
//!
//! A file that this program can close has to be closed. One that it cannot, since it is root's or on a
//! read-only file system, as containers mount secrets, may be open to a group that is ours.

use std::{ffi::OsString, fs::Metadata, os::unix::fs::MetadataExt, path::Path};

use rustix::{
    fs::{StatVfsMountFlags, statvfs},
    process::{Gid, getegid, geteuid, getgroups},
};
use uzers::os::unix::GroupExt;

/// A file or folder that other users may read or change. The text names it and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} {how}")]
pub struct Exposed {
    name: String,
    how: String,
}

impl Exposed {
    /// The text without the name, as a clause that follows it.
    pub fn how(&self) -> &str {
        &self.how
    }

    fn new(name: &str, how: &str, file: &Metadata, remedy: &str) -> Self {
        let mode = file.mode() & 0o777;
        Self { name: name.to_owned(), how: format!("{how} (mode {mode:03o}); {remedy}") }
    }
}

/// Refuses a file that another user may read or change.
pub(crate) fn check_secret(path: &Path, file: &Metadata) -> Result<(), Exposed> {
    let name = path.display().to_string();
    check_owner(&name, path, file)?;
    let is_for_group = !is_closable(path, file) && is_group_ours(file) && file.mode() & 0o037 == 0;
    if file.mode() & 0o077 == 0 || is_for_group {
        return Ok(());
    }
    Err(Exposed::new(&name, "is open to other users of this machine", file, &closing(path, file)))
}

/// Refuses a folder of secrets that another user may list or put files into. The owner is let be:
/// only root gets into another user's folder that is closed.
pub(crate) fn check_secret_folder(path: &Path, folder: &Metadata) -> Result<(), Exposed> {
    let is_safe = folder.uid() == 0
        && !is_closable(path, folder)
        && (is_read_only(path) || !has_writers(folder));
    if folder.mode() & 0o077 == 0 || is_safe {
        return Ok(());
    }
    let remedy = format!(
        "{}, or set `keys` to a folder of its own",
        change(path, folder, &format!("chmod 700 {}", path.display()))
    );
    let name = format!("the folder {}", path.display());
    Err(Exposed::new(&name, "is open to other users of this machine", folder, &remedy))
}

/// Refuses a file or folder that another user may change. Others may read it.
pub(crate) fn check_unchangeable(path: &Path, file: &Metadata) -> Result<(), Exposed> {
    let kind = if file.is_dir() { "the folder " } else { "" };
    let name = format!("{kind}{}", path.display());
    check_owner(&name, path, file)?;
    if is_read_only(path) || !has_writers(file) {
        return Ok(());
    }
    // Such as `/tmp`, or a volume that is mounted for every user.
    let is_common = file.is_dir() && (file.mode() & 0o1000 != 0 || !is_ours(file));
    let remedy = if is_common {
        "name a folder inside it, which is then made for this user alone".to_owned()
    } else {
        change(path, file, &format!("chmod go-w {}", path.display()))
    };
    Err(Exposed::new(&name, "may be changed by other users of this machine", file, &remedy))
}

/// How a secret is closed to other users, as a clause.
pub(crate) fn closing(path: &Path, file: &Metadata) -> String {
    let (path_text, group) = (path.display(), getegid().as_raw());
    if is_ours(file) {
        change(path, file, &format!("chmod 600 {path_text}"))
    } else {
        change(path, file, &format!("chgrp {group} {path_text} && chmod 640 {path_text}"))
    }
}

/// Refuses what belongs to another user than root and the one that runs the program.
fn check_owner(name: &str, path: &Path, file: &Metadata) -> Result<(), Exposed> {
    let (owner, user) = (file.uid(), geteuid().as_raw());
    if owner == 0 || owner == user {
        return Ok(());
    }
    let remedy = change(path, file, &format!("chown {user} {}", path.display()));
    let how = format!("belongs to another user of this machine (uid {owner}); {remedy}");
    Err(Exposed { name: name.to_owned(), how })
}

/// Whether another user than its owner may write to a file.
fn has_writers(file: &Metadata) -> bool {
    let is_group_safe = || is_group_of_user_alone(file) || !is_ours(file) && is_group_ours(file);
    file.mode() & 0o002 != 0 || file.mode() & 0o020 != 0 && !is_group_safe()
}

/// The command that closes a file, and whether root has to run it.
fn change(path: &Path, file: &Metadata, command: &str) -> String {
    if is_read_only(path) {
        return "its file system is read-only, so set owner and mode, such as 0440, where it is \
                mounted from"
            .to_owned();
    }
    let root = geteuid().is_root();
    let is_chown = command.starts_with("chown");
    let whose = if root || is_ours(file) && !is_chown { "" } else { "as root, " };
    format!("{whose}run: {command}")
}

/// Whether this process could take permissions from others.
fn is_closable(path: &Path, file: &Metadata) -> bool {
    is_ours(file) && !is_read_only(path)
}

fn is_ours(file: &Metadata) -> bool {
    geteuid().is_root() || file.uid() == geteuid().as_raw()
}

fn is_group_ours(file: &Metadata) -> bool {
    let is_it = |group: Gid| group.as_raw() == file.gid();
    is_it(getegid()) || getgroups().unwrap_or_default().into_iter().any(is_it)
}

/// Whether the group is the one that many systems give each user: of the same name, and without
/// members. Files made with their umask, 002, are open to it.
fn is_group_of_user_alone(file: &Metadata) -> bool {
    let user = uzers::get_user_by_uid(geteuid().as_raw());
    let group = uzers::get_group_by_gid(file.gid());
    user.zip(group).is_some_and(|(user, group)| {
        let is_member = |member: &OsString| member != user.name();
        user.name() == group.name() && !group.members().iter().any(is_member)
    })
}

fn is_read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|system| system.f_flag.contains(StatVfsMountFlags::RDONLY))
}
