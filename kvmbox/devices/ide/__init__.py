"""IDE channels with hard disks and CD-ROM drives."""
