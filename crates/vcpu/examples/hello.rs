//! A guest of one vCPU that prints through a serial port: `cargo run -p ghest-vcpu --example hello`.
//!
//! The guest is a few instructions in real mode. It also reads an address where there is no device, which returns all ones.
#![cfg_attr(not(target_arch = "x86_64"), expect(unused, reason = "the guest's code is for x86_64"))]

use std::error::Error;
use std::io::Write;
use std::sync::{Arc, mpsc};

use guest_memory::{Backing, GuestRam};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use ras_core::vcpu_state::VcpuState;
use vcpu::{
    Control, IoBus, KvmPort, MemoryErrorHandler, PoisonAccess, RunState, Unmapped, VcpuEnvironment,
    VcpuExitReason, VcpuExited, Vcpus,
};

/// Bytes of the guest's memory.
const MEMORY: u64 = 0x1_0000;
/// The code and its text.
const CODE: u64 = 0x1000;
const SERIAL_PORT: u16 = 0x3f8;
/// A write to this port stops the machine.
const STOP_PORT: u16 = 0xf4;

/// Prints the text behind the code, reads the byte at segment 0xa000, and stops with it.
const GUEST: [u8; 28] = [
    0xbe, 0x1c, 0x10, // mov si, 0x101c
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xac, // next: lodsb
    0x84, 0xc0, // test al, al
    0x74, 0x03, // jz done
    0xee, // out dx, al
    0xeb, 0xf8, // jmp next
    0xb8, 0x00, 0xa0, // done: mov ax, 0xa000
    0x8e, 0xd8, // mov ds, ax
    0xa0, 0x00, 0x00, // mov al, [0]
    0xe6, 0xf4, // out 0xf4, al
    0xf4, // hlt
    0xeb, 0xfd, // jmp hlt
    0x90, // nop
];
const TEXT: &[u8] = b"hello from the guest\n\0";

/// A serial port that prints, and a port that stops the machine.
struct Devices(Arc<Control>);

impl IoBus for Devices {
    fn port_out(&self, port: u16, data: &[u8]) -> Result<(), Unmapped> {
        match port {
            SERIAL_PORT => std::io::stdout().write_all(data).map_err(|_| Unmapped),
            STOP_PORT => {
                println!("the guest read {data:02x?} where there is no device");
                self.0.set(RunState::Stop);
                Ok(())
            }
            _ => Err(Unmapped),
        }
    }
}

/// Stops the machine at a memory error. A VMM would inject an exception that reports it.
struct StopAtError(Arc<Control>);

impl MemoryErrorHandler for StopAtError {
    fn consumed(&self, vcpu: u32, access: PoisonAccess, _: &mut dyn FnMut() -> Option<VcpuState>) {
        eprintln!("vCPU {vcpu} consumed a memory error: {access:?}");
        self.0.set(RunState::Stop);
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("This example's guest is x86_64 code: nothing to run on this host.");
}

#[cfg(target_arch = "x86_64")]
fn main() -> Result<(), Box<dyn Error>> {
    let kvm = match vcpu::host::open() {
        Ok(kvm) => kvm,
        Err(error) => {
            println!("This example needs KVM: {error}");
            return Ok(());
        }
    };
    let ram = GuestRam::allocate(&[(0, MEMORY)], Backing::Anonymous)?;
    ram.write(CODE, &GUEST)?;
    ram.write(CODE + GUEST.len() as u64, TEXT)?;
    let (vm, fd) = machine(&kvm, &ram)?;

    let control = Arc::new(Control::default());
    let environment = VcpuEnvironment {
        io: Arc::new(Devices(Arc::clone(&control))),
        memory_errors: Arc::new(StopAtError(Arc::clone(&control))),
        observer: Arc::new(()),
    };
    let (sender, receiver) = mpsc::channel();
    let exited: Arc<dyn Fn(VcpuExited) + Send + Sync> = Arc::new(move |exited| {
        // Fails only after `main` has ended.
        let _ = sender.send(exited);
    });
    let vcpus = Vcpus::start(vec![KvmPort::new(fd, ram.clone())], &environment, &control, &exited)?;
    let VcpuExited { vcpu, reason, registers } = receiver.recv()?;
    drop((vcpus, vm));
    match reason {
        VcpuExitReason::Stopped => Ok(()),
        reason => Err(format!("vCPU {vcpu}: {reason}; {registers}").into()),
    }
}

/// A virtual machine with the guest's memory, and its vCPU at the start of the code.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "KVM accesses host memory")]
fn machine(kvm: &Kvm, ram: &GuestRam) -> Result<(VmFd, VcpuFd), Box<dyn Error>> {
    let vm = kvm.create_vm().map_err(|error| format!("KVM_CREATE_VM: {error}"))?;
    vm.set_tss_address(0xfffb_d000).map_err(|error| format!("KVM_SET_TSS_ADDR: {error}"))?;
    for slot in ram.slots() {
        let region = kvm_userspace_memory_region {
            slot: slot.index,
            guest_phys_addr: slot.gpa,
            memory_size: slot.len,
            userspace_addr: slot.hva,
            flags: 0,
        };
        // SAFETY: `main` keeps a clone of `ram` until the machine is dropped.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(|error| format!("KVM_SET_USER_MEMORY_REGION (GPA {:#x}): {error}", slot.gpa))?;
    }
    let fd = vm.create_vcpu(0).map_err(|error| format!("KVM_CREATE_VCPU (vCPU 0): {error}"))?;
    let mut sregs = fd.get_sregs()?;
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    fd.set_sregs(&sregs)?;
    let mut regs = fd.get_regs()?;
    (regs.rip, regs.rflags) = (CODE, 2);
    fd.set_regs(&regs)?;
    Ok((vm, fd))
}
