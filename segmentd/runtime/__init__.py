"""The actors: Trio tasks that own state and talk through bounded mailboxes."""
