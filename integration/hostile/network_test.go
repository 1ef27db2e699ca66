package hostile

func networkRows() []row { return nil }
