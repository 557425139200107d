//! What the guest is told: one Platform in, ACPI, devicetree or MP table bytes out.
