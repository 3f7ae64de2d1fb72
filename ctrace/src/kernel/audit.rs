//! The kernel's audit log, read as one of its listeners: what auditd or anybody else does with it is
//! not touched.
//!
//! Records of seccomp are there whether auditing is enabled or not: `audit_seccomp` in
//! <https://github.com/torvalds/linux/blob/v6.12/kernel/auditsc.c#L2961-L2976>.

use std::{
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

/// `include/uapi/linux/audit.h`
const AUDIT_NLGRP_READLOG: u32 = 1;
const AUDIT_SECCOMP: u16 = 1326;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Room for what the kernel sends before it is read.
const RECEIVE_BUFFER: libc::c_int = 1 << 20;

/// A listener.
#[derive(Debug)]
pub struct AuditLog(OwnedFd);

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditRead {
    /// A system call that a filter logged.
    Seccomp(AuditSeccomp),
    /// Records were lost, at least one.
    Lost,
    /// Nothing came in time, or a record of another kind.
    Nothing,
}

/// A record of type 1326.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditSeccomp {
    /// When, milliseconds since the epoch; a tick of the kernel's clock early at most.
    pub time_ms: u64,
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Name of the thread; any bytes.
    pub comm: Vec<u8>,
    pub uid: Option<u32>,
    /// `AUDIT_ARCH_*`
    pub arch: u32,
    pub syscall: i64,
    /// The filter's answer, `SECCOMP_RET_*` without its data.
    pub code: u32,
}

impl AuditLog {
    /// Joins the listeners.
    ///
    /// # Errors
    /// Without `CAP_AUDIT_READ`, outside the initial namespaces, or in a kernel without audit.
    pub fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: plain integers.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_AUDIT) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has just made this descriptor for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all zeroes are a valid address.
        let mut address: libc::sockaddr_nl = unsafe { mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = 1 << (AUDIT_NLGRP_READLOG - 1);
        // SAFETY: the address is as long as said.
        let bound = unsafe {
            let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
            libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length)
        };
        if bound != 0 {
            return Err(io::Error::last_os_error());
        }
        let room = RECEIVE_BUFFER;
        // Where it is refused the room is smaller.
        // SAFETY: the option is an int.
        unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const room).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            );
        }
        Ok(Self(fd))
    }

    /// Waits for a record, at most `milliseconds`.
    ///
    /// # Errors
    /// Where the socket is of no more use.
    pub fn read(&self, milliseconds: i32) -> io::Result<AuditRead> {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        if unsafe { libc::poll(&raw mut poll, 1, milliseconds) } <= 0 {
            return Ok(AuditRead::Nothing);
        }
        let mut buffer = [0; 9000];
        // SAFETY: the buffer is as long as said; no address is asked for.
        let length = unsafe {
            libc::recvfrom(
                self.0.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        let Ok(length) = usize::try_from(length) else {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ENOBUFS) => Ok(AuditRead::Lost),
                Some(libc::EAGAIN | libc::EINTR) => Ok(AuditRead::Nothing),
                _ => Err(error),
            };
        };
        let record = parse_message(buffer.get(..length).unwrap_or_default());
        Ok(record.map_or(AuditRead::Nothing, AuditRead::Seccomp))
    }
}

/// A netlink message: `struct nlmsghdr`, then the record's text.
fn parse_message(message: &[u8]) -> Option<AuditSeccomp> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    (kind == AUDIT_SECCOMP).then(|| parse(message.get(HEADER..)?)).flatten()
}

/// `audit(1700000000.123:7): auid=… uid=0 gid=0 ses=… pid=12 comm="sh" exe="/bin/sh" sig=0
/// arch=c000003e syscall=165 compat=0 ip=0x… code=0x7ffc0000`. What a process can choose is quoted or
/// in hexadecimal digits, so that spaces divide fields. A security label comes before the process's
/// id and may hold anything: of several fields of one name the last counts.
fn parse(text: &[u8]) -> Option<AuditSeccomp> {
    let mut record = AuditSeccomp { time_ms: time_ms(text)?, ..AuditSeccomp::default() };
    let (mut has_pid, mut has_syscall, mut has_code) = (false, false, false);
    for field in text.split(|byte| matches!(byte, b' ' | 0)) {
        let Some(at) = field.iter().position(|byte| *byte == b'=') else { continue };
        let (name, value) = (&field[..at], &field[at + 1..]);
        match name {
            b"pid" => (record.pid, has_pid) = (decimal(value)?, true),
            b"comm" => record.comm = untrusted(value),
            b"uid" => record.uid = decimal(value),
            b"arch" => record.arch = hexadecimal(value)?,
            b"syscall" => (record.syscall, has_syscall) = (decimal(value)?, true),
            b"code" => {
                (record.code, has_code) = (hexadecimal(value.strip_prefix(b"0x")?)?, true);
            }
            _ => {}
        }
    }
    (has_pid && has_syscall && has_code).then_some(record)
}

/// `audit(SECONDS.MILLISECONDS:SERIAL):`
fn time_ms(text: &[u8]) -> Option<u64> {
    let text = text.strip_prefix(b"audit(")?;
    let until = |text: &[u8], end: u8| text.iter().position(|byte| *byte == end);
    let (seconds, rest) = text.split_at(until(text, b'.')?);
    let millis = rest.get(1..until(rest, b':')?)?;
    let (seconds, millis): (u64, u64) = (decimal(seconds)?, decimal(millis)?);
    seconds.checked_mul(1000)?.checked_add(millis)
}

fn decimal<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Text as `audit_log_untrustedstring` writes it: in quotes, or each byte as two digits.
fn untrusted(value: &[u8]) -> Vec<u8> {
    if let Some(quoted) = value.strip_prefix(b"\"") {
        return quoted.strip_suffix(b"\"").unwrap_or(quoted).to_owned();
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let byte = |pair: &[u8]| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?);
    value.chunks(2).map_while(byte).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RECORD: &str = "audit(1763716403.123:456): auid=4294967295 uid=7 gid=0 ses=4294967295 \
                          subj=docker-default (enforce) pid=123 comm=\"keyctl\" \
                          exe=\"/bin/busybox\" sig=0 arch=c000003e syscall=250 compat=0 \
                          ip=0x4f0aee code=0x7ffc0000\0";

    fn keyctl() -> AuditSeccomp {
        AuditSeccomp {
            time_ms: 1_763_716_403_123,
            pid: 123,
            comm: b"keyctl".to_vec(),
            uid: Some(7),
            arch: 0xc000_003e,
            syscall: 250,
            code: 0x7ffc_0000,
        }
    }

    #[test]
    fn a_record() {
        assert_eq!(parse(RECORD.as_bytes()), Some(keyctl()));
        let mut message = vec![0; HEADER];
        message[4..6].copy_from_slice(&AUDIT_SECCOMP.to_ne_bytes());
        message.extend_from_slice(RECORD.as_bytes());
        assert_eq!(parse_message(&message), Some(keyctl()));
        message[4..6].copy_from_slice(&1300_u16.to_ne_bytes());
        assert_eq!(parse_message(&message), None);
    }

    #[test]
    fn a_name_with_a_space() {
        let record = RECORD.replace("\"keyctl\"", "61207069643D39");
        assert_eq!(parse(record.as_bytes()).map(|record| record.comm), Some(b"a pid=9".to_vec()));
    }

    #[test]
    fn a_label_does_not_pass_for_a_field() {
        let record = RECORD.replace("(enforce)", "pid=1 comm=\"init\"");
        assert_eq!(parse(record.as_bytes()), Some(keyctl()));
    }

    #[test]
    fn without_a_code() {
        assert_eq!(parse(b"audit(1.1:1): pid=1 syscall=2"), None);
        assert_eq!(parse(b""), None);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_message(&bytes);
            let _ = parse(&bytes);
        }

        #[test]
        fn any_name(name in prop::collection::vec(any::<u8>(), 1..16)) {
            let hex: String = name.iter().map(|byte| format!("{byte:02X}")).collect();
            let record = RECORD.replace("\"keyctl\"", &hex);
            prop_assert_eq!(parse(record.as_bytes()).map(|record| record.comm), Some(name));
        }
    }
}
