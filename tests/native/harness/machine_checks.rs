//! Generated kernels that take machine checks.

use platform::x86_64::{POWER_PORT, RESET_VALUE, S5_SLEEP_TYPE, SERIAL_PORT};

use super::kernels::{LOAD, bz_image};

/// What a guest does in the handler of a machine check, from which it does not return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MachineCheckHandler {
    /// Prints `m` and halts.
    Hangs,
    Resets,
    /// Ends the machine check (MCG_STATUS = 0), and then resets.
    EndsAndResets,
    PowersOff,
    /// Its first instruction is undefined, and nothing handles that.
    Crashes,
}

impl MachineCheckHandler {
    fn code(self) -> Vec<u8> {
        let out = |port: u16, value: u8| {
            let [low, high] = port.to_le_bytes();
            vec![0x66, 0xba, low, high, 0xb0, value, 0xee, 0xf4, 0xeb, 0xfd] // mov dx, port; mov al, value; out dx, al; hlt, again
        };
        let reset = out(POWER_PORT + 2, RESET_VALUE);
        match self {
            MachineCheckHandler::Hangs => out(SERIAL_PORT, b'm'),
            MachineCheckHandler::Resets => reset,
            // xor eax, eax; xor edx, edx; mov ecx, MCG_STATUS; wrmsr
            MachineCheckHandler::EndsAndResets => {
                [&[0x31, 0xc0, 0x31, 0xd2, 0xb9, 0x7a, 0x01, 0, 0, 0x0f, 0x30], &reset[..]].concat()
            }
            MachineCheckHandler::PowersOff => out(POWER_PORT, S5_SLEEP_TYPE << 2 | 1 << 5),
            MachineCheckHandler::Crashes => vec![0x0f, 0x0b],
        }
    }
}

/// A bzImage that enables machine checks, and reads a page again and again.
pub(crate) fn takes_a_machine_check(gpa: u32, handling: MachineCheckHandler) -> Vec<u8> {
    let (table, table_register) = (0x5_0000_u32, 0x5_1000_u32);
    let code = |handler: u32| {
        let mut code = vec![0xbf];
        code.extend((table + 18 * 16).to_le_bytes()); // mov edi, the entry of #MC
        code.extend([0xc7, 0x07]);
        code.extend((0x10 << 16 | handler & 0xffff).to_le_bytes()); // mov dword [rdi], code segment and low half
        code.extend([0xc7, 0x47, 4]);
        code.extend((handler & 0xffff_0000 | 0x8e00).to_le_bytes()); // mov dword [rdi + 4], high half, interrupt gate
        code.extend([0x48, 0xc7, 0x47, 8, 0, 0, 0, 0]); // mov qword [rdi + 8], 0
        code.push(0xbf);
        code.extend(table_register.to_le_bytes()); // mov edi, table_register
        code.extend([0x66, 0xc7, 0x07, 0xff, 0x0f]); // mov word [rdi], 0xfff
        code.extend([0x48, 0xc7, 0x47, 2]);
        code.extend(table.to_le_bytes()); // mov qword [rdi + 2], table
        code.extend([0x0f, 0x01, 0x1f, 0xbc]);
        code.extend((table + 0x8000).to_le_bytes()); // lidt [rdi]; mov esp, a stack
        code.extend([0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x40, 0x0f, 0x22, 0xe0]); // cr4 |= CR4.MCE
        code.extend([0x83, 0xc8, 0xff, 0x83, 0xca, 0xff]); // or eax, -1; or edx, -1
        code.extend([0xb9, 0x7b, 0x01, 0, 0, 0x0f, 0x30]); // mov ecx, MCG_CTL; wrmsr
        code.extend([0xb9, 0x24, 0x04, 0, 0, 0x0f, 0x30]); // mov ecx, MC9_CTL; wrmsr
        code.extend([0x8b, 0x04, 0x25]);
        code.extend(gpa.to_le_bytes()); // mov eax, [gpa]
        code.extend([0xeb, 0xf7]); // jmp to it
        code
    };
    let handler = LOAD as u32 + 0x200 + code(0).len() as u32;
    bz_image(&[code(handler), handling.code()].concat())
}
