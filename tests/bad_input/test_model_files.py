"""Model files with one thing wrong: said before anything is trained."""

import pathlib

import jax
import pytest

NEW_PROBLEM = "\nclass Wrong(Line):\n{body}\n\nproblem = Wrong()\n"
NEW_MODEL = "\ndef model(operator, x, y=None, sigma=0.5):\n{body}\n"
NEW_DATA = "\ndef synthetic_data(seed):\n{body}\n"


def indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def method(name: str, arguments: str, *body: str) -> str:
    return f"def {name}(self, {arguments}):\n" + "\n".join(f"    {line}" for line in body)


def residual(*body: str) -> str:
    return method("residual", "u, x, theta", *body)


def lift(*body: str) -> str:
    return method("lift", "x, raw, theta", *body)


def boundary(*body: str) -> str:
    return method("boundary", "theta", *body)


PLAIN = [
    ("sys.exit()", "it ends the process"),
    ("sys.exit(0)", "it ends the process"),
    ("quit()", "it ends the process"),
    ("raise SystemExit('bye')", "it ends the process"),
    ("1 / 0", r"line \d+: ZeroDivisionError: division by zero"),
    ("import no_such_module", "ModuleNotFoundError"),
    ("undefined_name", "NameError"),
    ("def broken(", "SyntaxError"),
    ("x = 'abc", "SyntaxError"),
    ("  y = 3", "IndentationError"),
    ("raise ValueError('x' * 5000)", r"ValueError: x+ \.\.\."),
    ("open('no/such/file')", "FileNotFoundError"),
    ("del problem", r"does not define problem \(the PDE"),
    ("del start", "does not define start"),
    ("del model", "does not define model"),
    ("del synthetic_data", "defines no synthetic_data, so there are no data: give --data FILE"),
    ("problem = None", "problem is None; it must be the PDE"),
    ("problem = Line", "problem is of type Line .a class."),
    ("problem = bilo.interval(0, 1)", "it must be the PDE"),
    ("start = None", "start is None; it must be the theta"),
    ("start = 1.0", "start is 1.0; it must be the theta"),
    ("start = ['a']", "it must be the theta"),
    ("start = {}", r"missing \['a'\]"),
    ("start = {'b': 1.0}", r"missing \['a'\], unknown \['b'\]"),
    ("start = {'a': 1.0, 'b': 1.0}", r"unknown \['b'\]"),
    ("start = {'a': 'one'}", r"theta\['a'\] = 'one' is no real number"),
    ("start = {'a': '1.0'}", r"theta\['a'\] = '1.0' is no real number"),
    ("start = {'a': ['1', '2']}", "is no real number"),
    ("start = {'a': None}", "theta.*None is no real number"),
    ("start = {'a': True}", "True is no real number"),
    ("start = {'a': 1j}", "1j is no real number"),
    ("start = {'a': np.array(['1'])}", "is no real number"),
    ("start = {'a': []}", "is empty"),
    ("start = {'a': np.zeros(0)}", "is empty"),
    ("start = {'a': np.nan}", "is not finite"),
    ("start = {'a': np.inf}", "is not finite"),
    ("start = {'a': 10**400}", "is no real number"),
    ("start = {'a': object()}", "is no real number"),
    ("start = {'a': -1.0}", "start has a = -1.0, which lies outside the support"),
    ("start = {'a': 0.0}", "start has a = 0.0, which lies outside|on the edge"),
    ("start = {'a': np.ones(2)}", r"entry 'a' of theta has shape \(\), and \(2,\)"),
    ("init = 3", "init is 3; it must be a mapping"),
    ("units = ['1/day']", "units is .*; it must be a mapping such as"),
    ("units = {'a': 3}", "units has 'a': 3; a unit is a text such as"),
    ("units = {'a': ' '}", "a text such as .*, of 1 to 40 characters"),
    ("units = {'b': '1/day'}", r"units has \['b'\], of which there is nothing; named are a, y, u, x"),
    ("init = {'b': 1.0}", r"init has \['b'\]"),
    ("init = {'a': [1.0, 2.0]}", r"init has \['a'\]"),
    ("init = {'a': -3.0}", "init has a = -3.0, which lies outside"),
    ("truth = 1.0", "truth is 1.0; it must be a mapping"),
    ("architecture = 8", r"architecture has \[8\]"),
    ("architecture = {'widht': 8}", r"architecture has \['widht'\]"),
    ("architecture = {'width': 0}", "width"),
    ("architecture = {'width': -3}", "width"),
    ("architecture = {'width': 2.5}", "width"),
    ("architecture = {'width': 'wide'}", "width"),
    ("architecture = {'width': 10**7}", "width"),
    ("architecture = {'depth': 0}", "depth"),
    ("architecture = {'depth': 10**6}", "depth"),
    ("architecture = {'fourier': -1}", "fourier"),
    ("architecture = {'fourier': 'many'}", "fourier"),
    ("architecture = {'scales': {'a': 0.0}}", "scales must be positive"),
    ("architecture = {'scales': {'b': 1.0}}", r"\['b'\] in embedded or scales"),
    ("architecture = {'embedded': ('b',)}", r"\['b'\] in embedded or scales"),
    ("architecture = {'dtype': 'float99'}", "float99"),
    ("architecture = {'dtype': np.int32}", "dtype"),
    ("architecture = {'network': lambda x, e: x}", "no floating-point arrays"),
    ("reference = 1", "reference is 1; it must be a function without arguments"),
    ("def reference(x): pass", "reference is reference.x.; it must be a function without"),
    ("def reference(): return None", r"reference\(\) returns a NoneType"),
    ("def reference(): return problem", r"reference\(\) returns a Line"),
    ("def reference(): raise KeyError('k')", r"reference\(\) fails .*line \d+.*no entry 'k'"),
    ("def reference(): sys.exit()", r"reference\(\) fails.*ends the process"),
    ("exact = 3", "exact is 3; it must be a function of a point"),
    ("def exact(): return 0.0", "exact.x., of a point x of shape .1,., fails.*TypeError"),
    ("def exact(x, theta): return x[0]", "exact.x.*fails.*TypeError"),
    ("def exact(x): return x", r"exact\(x\) has shape \(1,\)"),
    ("def exact(x): return jnp.zeros(2)", r"exact\(x\) has shape \(2,\)"),
    ("def exact(x): return None", "exact"),
    ("def exact(x): return x[0] if x[0] > 0 else 0.0", "jnp.where"),
    ("def exact(x): return unknown(x)", "NameError"),
    ("reference_grid = 3", "reference_grid is 3; it must be a mapping"),
    ("reference_grid = {'a': [3.0, 2.0, 1.0]}", r"grid\['a'\] must be .* increasing"),
    ("reference_grid = {'a': [1.0, 1.0, 2.0]}", "increasing"),
    ("reference_grid = {'a': [1.0, 2.0]}", "at least 3 increasing"),
    ("reference_grid = {'a': 1.0}", "1-D array"),
    ("reference_grid = {'a': [1.0, np.nan, 2.0]}", "increasing"),
    ("reference_grid = {'a': [1.0, 2.0, np.inf]}", "increasing"),
    ("reference_grid = {'b': [1.0, 2.0, 3.0]}", r"the grid has the names \['b'\]"),
    ("reference_grid = {'a': [1., 2., 3.], 'b': [1., 2., 3.]}", "the grid has the names"),
    ("reference_grid = {n: [1., 2., 3.] for n in 'abc'}", "one or two parameters"),
    ("reference_grid = {'a': ['x', 'y', 'z']}", "could not convert|grid"),
    ("model = 3", "model is 3; it must be"),
    ("def model(x, y): pass", r"model is model\(x, y\)"),
    ("def model(): pass", r"model is model\(\)"),
    ("def model(operator, x, y, noise): pass", "model is model"),
    ("def model(operator, x, y, sigma, experiment): pass", "requires"),
    ("model = lambda operator, x, y, sigma: None", "there is nothing to infer"),
    ("synthetic_data = None", "defines no synthetic_data"),
    ("synthetic_data = {'x': 1}", "synthetic_data is"),
    ("def synthetic_data(): return {}", r"synthetic_data is synthetic_data\(\); it must be a function"),
    ("def synthetic_data(a, b): return {}", r"synthetic_data is synthetic_data\(a, b\)"),
]  # fmt: skip

DATA = [
    ("pass", "returns a NoneType"),
    ("return 3", "returns a int"),
    ("return [1, 2]", "returns a list"),
    ("return {}", r"no entry \['x', 'y', 'sigma'\]"),
    ("return {'x': [[0.5]], 'y': [0.0]}", r"no entry \['sigma'\]"),
    ("return {'x': [0.5], 'y': [0.0], 'sigma': 1.0}", r"x has shape \(1,\)"),
    ("return {'x': [[0.5]], 'y': [0.0, 1.0], 'sigma': 1.0}", "y must have as many"),
    ("return {'x': [[0.5]], 'y': 0.0, 'sigma': 1.0}", "x has shape"),
    ("return {'x': [[0.5, 0.1]], 'y': [0.0], 'sigma': 1.0}", r"x must be \(n, 1\)"),
    ("return {'x': np.zeros((0, 1)), 'y': [], 'sigma': 1.0}", "there are no observations"),
    ("return {'x': [[7.0]], 'y': [0.0], 'sigma': 1.0}", "x = 7 lies outside the domain"),
    ("return {'x': [[np.nan]], 'y': [0.0], 'sigma': 1.0}", "not a finite number"),
    ("return {'x': [[0.5]], 'y': [np.inf], 'sigma': 1.0}", "y is inf"),
    ("return {'x': [[0.5]], 'y': [np.nan], 'sigma': 1.0}", "y is nan"),
    ("return {'x': [[0.5]], 'y': [0.0], 'sigma': 0.0}", "sigma is 0; it must be positive"),
    ("return {'x': [[0.5]], 'y': [0.0], 'sigma': -1}", "sigma is -1; it must be positive"),
    ("return {'x': [[0.5]], 'y': [0.0], 'sigma': np.nan}", "sigma is nan"),
    ("return {'x': [[0.5]], 'y': [0.0], 'sigma': [1, 2]}", r"sigma has shape \(2,\)"),
    ("return {'x': [[0.5]], 'y': [0.0], 'sigma': 'small'}", "sigma is not an array of numbers"),
    ("return {'x': [[0.5]], 'y': ['a'], 'sigma': 1.0}", "y is not an array of numbers"),
    ("return {'x': [[0.5], [0.1, 0.2]], 'y': [0., 0.], 'sigma': 1.0}", "x is not an array"),
    ("return {'x': [[0.5]], 'y': [1j], 'sigma': 1.0}", "y is not an array of numbers"),
    ("return {'x': [[0.5]], 'y': [1.0], 'sigma': 1e-9}", "noise of 'y' is 1e-09"),
    ("return {'x': [[0.5]], 'y': [1.0], 'sigma': 1e-320}", "noise of 'y' is"),
    ("return {'x': [[0.5]], 'y': [1e300], 'sigma': 1.0}", "noise of 'y' is 1 where"),
    ("return {'x': [[0.5]], 'y': [0.], 'sigma': 1., 'experiment': ['a']}", "no parameter of that"),
    ("return {'x': [[0.5]], 'y': [0.], 'sigma': 1., 'experiment': ['a', 'b']}", "experiment"),
    ("raise KeyError('z')", "synthetic_data.0. fails .*line.*no entry 'z'"),
    ("sys.exit()", "synthetic_data.0. fails.*ends the process"),
    ("return open('nothing.csv')", "FileNotFoundError"),
]  # fmt: skip

PROBLEMS = [
    ("components = 0", "components is 0"),
    ("components = -1", "components is -1"),
    ("components = 1.0", "components is 1.0"),
    ("components = '1'", "components is '1'"),
    ("components = True", "components is True"),
    ("components = 2", "every datum would count several times"),
    ("parameters = 'a'", "parameters is 'a'; it must be a tuple"),
    ("parameters = ('a', 'a')", "parameters is"),
    ("parameters = (1,)", "parameters is"),
    ("parameters = ('',)", "parameters is"),
    ("parameters = None", "parameters is None"),
    ("parameters = ('a', 'b')", r"missing \['b'\]"),
    ("domain = (0.0, 1.0)", "domain is .* it must be a Box"),
    ("domain = None", "domain is None"),
    ("domain = bilo.interval(0.0, 0.4)", "points lie outside the domain"),
    ("domain = bilo.Box((0.0, 0.0), (1.0, 1.0))", "points has shape"),
    ("points = np.linspace(0, 1, 5)", r"points has shape \(5,\)"),
    ("points = np.zeros((0, 1))", "points has shape"),
    ("points = np.zeros((5, 2))", "points has shape"),
    ("points = [[2.0]]", "points lie outside"),
    ("points = [[np.nan]]", "points lie outside"),
    ("points = 'many'", "points fails"),
    ("points = None", "points"),
    ("component_names = 'u'", "component_names is"),
    ("component_names = ('u', 'v')", "component_names is"),
    ("component_names = ('sigma',)", "component_names has"),
    (residual("return theta['k'] * u(x)"), r"residual fails .*line \d+.*no entry 'k'"),
    (residual("return theta['a'] * undefined(x)"), r"residual fails .*NameError"),
    (residual("return bilo.laplacian(u) - theta['a']"), r"derivative is a function.*laplacian\(u\)\(x"),
    (residual("return None"), "residual returns nothing"),
    (residual("pass"), "residual returns nothing"),
    (residual("return 'zero'"), "residual"),
    (residual("return u(x), u(x) - theta['a']"), "residual returns a tuple"),
    (residual("return [u(x) - theta['a']]"), "residual returns a list"),
    (residual("return (u(x) - theta['a']) * jnp.ones((2, 2))"), "residual returns shape"),
    (residual("return (u(x) - theta['a']) * 1j"), "residual returns complex"),
    (residual("return jnp.log(-1.0 + 0 * x[0]) + u(x)"), "residual is not finite at 5 of 5"),
    (residual("return u(x) / x[0] - theta['a']"), "residual is not finite at 1 of 5"),
    (residual("return u - theta['a']"), "residual fails.*TypeError"),
    (residual("return u(x)[0] - theta['a']"), "residual fails"),
    (residual("return u(x[0]) - theta['a'] * x[1]", ), "residual"),
    (residual("return bilo.partial(u, 1)(x) - theta['a']"), "axis 1 was asked for"),
    (residual("return bilo.partial(u)(x) - theta['a']"), "needs at least one axis"),
    (residual("return bilo.partial(u, self.domain.time)(x)"), "the domain has no time"),
    (residual("return bilo.laplacian(u(x)) - theta['a']"), "residual"),
    (residual("return x[0] - theta['a']"), "residual does not depend on u"),
    (residual("return 0.0"), "residual does not depend on u"),
    (residual("return 0.0 * u(x)"), "residual does not depend on u"),
    (residual("return bilo.laplacian(u)(x)"), "the parameter 'a' has no part"),
    (residual("return u(x) - 0 * theta['a']"), "the parameter 'a' has no part"),
    (residual("return u(x) - jnp.where(x[0] < theta['a'], 1.0, 0.0)"), "'a' by jumps only"),
    (residual("sys.exit()"), "residual fails .*ends the process"),
    (residual("raise ValueError('no')"), "residual fails .*ValueError: no"),
    (residual("return self.residual(u, x, theta)"), "residual fails.*RecursionError"),
    (method("residual", "u, x", "return u(x)"), "residual fails.*TypeError"),
    (lift("return x * raw"), r"lift returns shape \(1,\)"),
    (lift("return None"), "lift"),
    (lift("return x[0]"), "lift does not depend on the raw"),
    (lift("return jnp.log(x[0] - 2) + raw"), "lift is not finite"),
    (lift("return theta['k'] + raw"), "lift fails .*no entry 'k'"),
    (lift("return raw[0]"), "lift fails"),
    (boundary("return np.array([0.0, 1.0]), np.zeros(2)"), r"boundary: its points have shape \(2,\)"),
    (boundary("return np.array([[0.0], [1.0]])"), "it must return a pair"),
    (boundary("return 0.0"), "it must return a pair"),
    (boundary("return [[0.0]], [0.0]"), "does not keep the boundary values"),
    (boundary("return [[0.0]], [[0.0]]"), "boundary: values of shape"),
    (boundary("return [[0.0]], [np.nan]"), "boundary: its values are not finite"),
    (boundary("return [[7.0]], [0.0]"), "boundary: a point lies outside"),
    (boundary("return [[0.0, 0.0]], [0.0]"), "boundary: its points have shape"),
    (boundary("return [['a']], [0.0]"), "boundary fails"),
    (boundary("return theta['z'], 0"), "boundary fails.*no entry 'z'"),
    (method("conditions", "u, theta", "return [u(jnp.zeros(1))]"), "conditions returns a list"),
    (method("conditions", "u, theta", "return {'left': u(jnp.zeros(1))}"), "'left' has shape.*r.None"),
    (method("conditions", "u, theta", "return {'b': bilo.partial(u, 0)(1.0)[None]}"), "at a number; a"),
    (method("conditions", "u, theta", "return {'b': jnp.log(-jnp.ones(1))}"), "not finite"),
    (method("conditions", "u, theta", "return {'b': theta['q']}"), "conditions fails.*'q'"),
    (method("inputs", "x, theta", "return None"), "network"),
    (method("inputs", "x, theta", "return theta['q']"), "no network can be made.*'q'"),
]  # fmt: skip

PRIOR = "a = numpyro.sample('a', dist.LogNormal(0.0, 1.0))\n"
SOLVED = PRIOR + "u = bilo.solution('u', operator, {'a': a})\n"
SEEN = "numpyro.sample('y', dist.Normal(jax.vmap(u)(x), sigma), obs=y)\n"

MODELS = [
    ("pass", "there is nothing to infer"),
    (PRIOR, "has no bilo_ppl.solution"),
    ("u = bilo.solution('u', operator, {'a': 1.0})\n" + SEEN, "no sample site without data"),
    (SOLVED, "has no likelihood"),
    (SOLVED + "numpyro.sample('y', dist.Normal(jax.vmap(u)(x), sigma))", "forget obs=y"),
    (SOLVED + "numpyro.sample('y', dist.Normal(u(x), sigma), obs=y)", r"write jax.vmap\(u\)\(x\)"),
    (SOLVED + "numpyro.sample('y', dist.Normal(u(x[:, 0]), sigma), obs=y)", "jax.vmap"),
    (SOLVED + "numpyro.sample('y', dist.Normal(jax.vmap(u)(x)[:, None], sigma), obs=y)",
     "every datum would count several times"),
    (SOLVED + "numpyro.sample('y', dist.Normal(jax.vmap(u)(x[:2]), sigma), obs=y)", "fails|shape"),
    (SOLVED + "numpyro.sample('y', dist.Normal(jax.vmap(u)(x), -0.1), obs=y)", "scale|positive"),
    (SOLVED + "numpyro.sample('y', dist.Normal(jax.vmap(u)(x), 1e-12), obs=y + 1.0)", "noise of"),
    (SOLVED.replace("'u', operator", "'a', operator") + SEEN, "'a' is also that of a sample site"),
    (SOLVED + "v = bilo.solution('u', operator, {'a': a})\n" + SEEN, "'u' is used twice"),
    (SOLVED + "numpyro.sample('a', dist.Normal(0, 1))\n" + SEEN, "'a'"),
    (PRIOR + "u = bilo.solution('u', operator, {'b': a})\n" + SEEN, r"missing \['a'\]"),
    (PRIOR + "u = bilo.solution('u', operator, a)\n" + SEEN, "must be a mapping|Mapping"),
    (PRIOR + "u = bilo.solution('u', operator, {'a': a * jnp.ones(2)})\n" + SEEN, "has shape"),
    (PRIOR + "u = bilo.solution('u', operator, {'a': 'one'})\n" + SEEN, "is no real number"),
    (PRIOR + "u = bilo.solution('u', operator, {'a': None})\n" + SEEN, "is no real number"),
    (PRIOR + "u = bilo.solution('u', problem, {'a': a})\n" + SEEN,
     "operator is a Line|AbstractSolutionOperator"),
    (PRIOR + "u = bilo.solution('u', None, {'a': a})\n" + SEEN,
     "operator is a NoneType|AbstractSolutionOperator"),
    (PRIOR + "u = jax.vmap(lambda b: bilo.solution('u', operator, {'a': b})(x[0]))(a * jnp.ones(3))\n"
     "numpyro.sample('y', dist.Normal(u, sigma), obs=y)", "inside of a jax.vmap"),
    (PRIOR + "if a > 1:\n    a = 1 / a\nu = bilo.solution('u', operator, {'a': a})\n" + SEEN,
     r"jnp\.where\(condition"),
    (PRIOR + "b = float(a)\nu = bilo.solution('u', operator, {'a': a})\n" + SEEN, "jnp.where"),
    (PRIOR + "b = np.sin(a)\nu = bilo.solution('u', operator, {'a': b})\n" + SEEN, "jax.numpy"),
    (PRIOR + "for i in range(a): pass\nu = bilo.solution('u', operator, {'a': a})\n" + SEEN,
     "fails on these data"),
    (SOLVED + SEEN + "sys.exit()", "fails on these data.*ends the process"),
    (SOLVED + SEEN + "undefined", r"fails on these data .*line \d+.*NameError"),
    (SOLVED + SEEN + "{}['q']", "no entry 'q'"),
    ("k = numpyro.sample('k', dist.Poisson(3.0))\n" + SOLVED + SEEN, "'k' is discrete .Poisson"),
    ("k = numpyro.sample('k', dist.Bernoulli(0.5))\n" + SOLVED + SEEN, "'k' is discrete"),
    ("k = numpyro.sample('k', dist.Categorical(np.ones(3) / 3))\n" + SOLVED + SEEN, "discrete"),
    (SOLVED.replace("LogNormal(0.0, 1.0)", "Uniform(2.0, 3.0)") + SEEN, "start has a = 1.0.*outside"),
    (SOLVED.replace("LogNormal(0.0, 1.0)", "Uniform(0.0, 1.0)") + SEEN, "on the edge of"),
    (SOLVED.replace("LogNormal(0.0, 1.0)", "Beta(1.0, 1.0)") + SEEN, "start has a"),
    (SOLVED.replace("LogNormal(0.0, 1.0)", "LogNormal(0.0, -1.0)") + SEEN, "scale|fails|positive"),
    (SOLVED.replace("sample('a'", "sample(''") + SEEN, "cannot have this name"),
    (SOLVED.replace("sample('a'", "sample('chain'") + SEEN, "cannot have this name"),
    (SOLVED.replace("sample('a'", "sample('draw'") + SEEN, "cannot have this name"),
    (SOLVED.replace("sample('a'", "sample('a' * 300") + SEEN, "cannot have this name"),
    (SOLVED.replace("sample('a'", "sample('a\\0b'") + SEEN, "cannot have this name"),
    ("b = numpyro.sample('b', dist.ImproperUniform(dist.constraints.real, (), (90,)))\n"
     + SOLVED + SEEN, "improper prior"),
]  # fmt: skip

COMPILED = [
    (residual("return u(x) if theta['a'] > 1 else -u(x)"), "jnp.where"),
    (residual("return u(x) if u(x) > 1 else -u(x)"), "jnp.where"),
    (residual("import math", "return u(x) - math.sin(theta['a'])"), "jax.numpy"),
]


def run(refused, change, message, *arguments):
    path = pathlib.Path("line.py")
    path.write_text(path.read_text() + "\n" + change + "\n")
    assert "line.py" in refused("run", "line.py", *arguments, saying=message)


@pytest.mark.parametrize(("change", "message"), PLAIN)
def test_a_definition(refused, folder, change, message):
    run(refused, change, message)


@pytest.mark.parametrize(("body", "message"), DATA)
def test_synthetic_data(refused, folder, body, message):
    run(refused, NEW_DATA.format(body=indented(body)), message)


@pytest.mark.parametrize(("body", "message"), PROBLEMS)
def test_a_problem(refused, folder, body, message):
    run(refused, NEW_PROBLEM.format(body=indented(body)), message)


@pytest.mark.parametrize(("body", "message"), MODELS)
def test_a_model(refused, folder, body, message):
    run(refused, NEW_MODEL.format(body=indented(body)), message)


@pytest.mark.parametrize(("body", "message"), COMPILED)
def test_a_choice_by_a_value_that_is_traced(refused, folder, body, message):
    with jax.disable_jit(False):
        run(refused, NEW_PROBLEM.format(body=indented(body)), message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a model file; it does not define problem"),
        (b"\xff\xfe\x00\x01", "SyntaxError|ValueError|SourceEncoding|null bytes"),
        (b"\x80\x04\x95", "SyntaxError"),
        (b"PK\x03\x04", "SyntaxError|null bytes|ValueError"),
        (b"hello world\n", "SyntaxError"),
        (b'{"cells": []}', "does not define problem"),
    ],
)
def test_a_file_that_is_none(refused, folder, content, message):
    pathlib.Path("other.py").write_bytes(content)
    refused("run", "other.py", saying=message)


def test_a_folder_in_the_place_of_a_file(refused, folder):
    pathlib.Path("folder.py").mkdir()
    refused("run", "folder.py", saying="there is no model file folder.py")


def test_the_numerical_operator_that_a_file_does_not_have(refused, folder):
    run(refused, "del reference", "defines no numerical operator", "--operator", "numerical")


def test_the_plain_file_is_good(folder, monkeypatch):
    """So that every case above has one thing wrong."""
    from bilo_ppl.cli import main

    with pytest.raises(Exception, match=r"^$") as caught:
        main(["run", "line.py"])
    assert type(caught.value).__name__ == "WorkHasBegunError"
