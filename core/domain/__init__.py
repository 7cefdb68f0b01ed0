"""Define loradar's frozen records and vocabulary; nothing in here imports torch, SQL or another folder of loradar."""
