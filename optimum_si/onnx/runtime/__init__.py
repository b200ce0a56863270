"""Running exports: sessions, providers, and models that answer as transformers' do."""
