from detrex.cache import default_cache_dir


def test_default_cache_dir__variable(monkeypatch, tmp_path):
    monkeypatch.setenv("DETREX_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path


def test_default_cache_dir__home_without_the_variable(monkeypatch, tmp_path):
    monkeypatch.delenv("DETREX_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "detrex"
