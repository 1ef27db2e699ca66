package hostile

func limitsRows() []row { return nil }
