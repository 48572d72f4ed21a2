"""Everything durable: tables, migrations, journal, ledger, reports."""
