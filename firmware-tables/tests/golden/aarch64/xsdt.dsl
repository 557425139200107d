[000h 0000   4]                    Signature : "XSDT"    [Extended System Description Table]
[004h 0004   4]                 Table Length : 00000074
[008h 0008   1]                     Revision : 01
[009h 0009   1]                     Checksum : 4D
[00Ah 0010   6]                       Oem ID : "GHEST "
[010h 0016   8]                 Oem Table ID : "GHESTVMM"
[018h 0024   4]                 Oem Revision : 00000001
[01Ch 0028   4]              Asl Compiler ID : "GHST"
[020h 0032   4]        Asl Compiler Revision : 00000001

[024h 0036   8]       ACPI Table Address   0 : 00000000400002C0
[02Ch 0044   8]       ACPI Table Address   1 : 0000000040000400
[034h 0052   8]       ACPI Table Address   2 : 0000000040000500
[03Ch 0060   8]       ACPI Table Address   3 : 0000000040000580
[044h 0068   8]       ACPI Table Address   4 : 0000000040000600
[04Ch 0076   8]       ACPI Table Address   5 : 0000000040000680
[054h 0084   8]       ACPI Table Address   6 : 0000000040000700
[05Ch 0092   8]       ACPI Table Address   7 : 0000000040000800
[064h 0100   8]       ACPI Table Address   8 : 0000000040000980
[06Ch 0108   8]       ACPI Table Address   9 : 00000000400009C0
