[000h 0000   4]                    Signature : "XSDT"    [Extended System Description Table]
[004h 0004   4]                 Table Length : 0000005C
[008h 0008   1]                     Revision : 01
[009h 0009   1]                     Checksum : 57
[00Ah 0010   6]                       Oem ID : "GHEST "
[010h 0016   8]                 Oem Table ID : "GHESTVMM"
[018h 0024   4]                 Oem Revision : 00000001
[01Ch 0028   4]              Asl Compiler ID : "GHST"
[020h 0032   4]        Asl Compiler Revision : 00000001

[024h 0036   8]       ACPI Table Address   0 : 00000000000E0340
[02Ch 0044   8]       ACPI Table Address   1 : 00000000000E0480
[034h 0052   8]       ACPI Table Address   2 : 00000000000E0500
[03Ch 0060   8]       ACPI Table Address   3 : 00000000000E0580
[044h 0068   8]       ACPI Table Address   4 : 00000000000E0740
[04Ch 0076   8]       ACPI Table Address   5 : 00000000000E08C0
[054h 0084   8]       ACPI Table Address   6 : 00000000000E0900
