"""Pages of HTML for people: one file each, without network, that shows what guests have printed."""
