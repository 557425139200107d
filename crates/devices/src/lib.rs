//! Device models: behaviour, ACPI description and devicetree description of each in one file.
