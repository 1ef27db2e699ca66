package hostile

func channelRows() []row { return nil }
